package bump

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// revisionRE is a commit, or a tag of git that needs no escaping.
var revisionRE = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$`)

// sourceURL reads org.opencontainers.image.source (image-spec, annotations) as
// the address of a repository that people can open; "" when it is none.
// Whoever pushed the image wrote it, so that it may be anything.
func sourceURL(label string) string {
	s := label
	if rest, ok := strings.CutPrefix(s, "git@"); ok { // git@host:path
		host, path, found := strings.Cut(rest, ":")
		if !found {
			return ""
		}
		s = "https://" + host + "/" + path
	}
	s = strings.TrimPrefix(s, "git+")
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || len(s) > 500 {
		return ""
	}
	path := strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	if path == "" || strings.ContainsAny(path, " ()<>[]\\\"'`|") || strings.ContainsAny(u.Host, "()<>[]\\\"'`|") {
		return ""
	}
	return u.Scheme + "://" + u.Host + "/" + path
}

// compareURL is where people see what lies between two revisions, in the form
// of the forge that the source seems to be on; "" when it cannot be told. GitHub,
// Gitea and Forgejo share one form, GitLab has its own.
func compareURL(source, from, to string) string {
	base := sourceURL(source)
	if base == "" || from == to || !safeRevision(from) || !safeRevision(to) {
		return ""
	}
	if isGitLab(base) {
		base += "/-"
	}
	return fmt.Sprintf("%s/compare/%s...%s", base, from, to)
}

// releasesURL is where a changelog may be.
func releasesURL(source string) string {
	base := sourceURL(source)
	if base == "" {
		return ""
	}
	if isGitLab(base) {
		base += "/-"
	}
	return base + "/releases"
}

func isGitLab(base string) bool {
	u, err := url.Parse(base)
	return err == nil && strings.Contains(strings.ToLower(u.Host), "gitlab")
}

func safeRevision(s string) bool { return revisionRE.MatchString(s) && !strings.Contains(s, "..") }
