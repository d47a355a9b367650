package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/image"
)

// Validate checks a configuration that was not read from a file, or changed
// since. [Load] and [Parse] have done it. The error is an [*Error].
func (c *Config) Validate() error {
	d := &decoder{}
	if ps := c.validate(d.at); len(ps) > 0 {
		return &Error{Problems: ps}
	}
	return nil
}

// validate checks what the types cannot say. at makes a problem of a key.
func (c *Config) validate(at func(key, format string, args ...any) Problem) (out []Problem) {
	fail := func(key, format string, args ...any) { out = append(out, at(key, format, args...)) }
	between := func(key string, d, low, high Duration) {
		if d < low || d > high {
			fail(key, "%s is out of bounds: choose from %s to %s", d, low, high)
		}
	}

	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		fail("listen", "%.80q is no address: write host:port, such as 127.0.0.1:5080", c.Listen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		fail("listen", "%.80q has no port from 0 to 65535: write host:port, such as 127.0.0.1:5080", c.Listen)
	}
	if c.Data == "" {
		fail("data", "no folder: name one, or remove the key")
	}
	if c.ExternalURL != "" {
		u, err := url.Parse(c.ExternalURL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			fail("external_url", "%.80q: write http or https, the host and perhaps a port, such as https://registry.example.org", c.ExternalURL)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		fail("tls", "cert and key go together: name both files or neither")
	}
	if c.TLS.On() && strings.HasPrefix(c.ExternalURL, "http:") {
		fail("external_url", "it starts with http: but tls is set: write https:")
	}

	second, century := Duration(time.Second), maxDuration
	out = append(out, c.validateMirrors(at)...)
	out = append(out, c.validateClusters(at)...)
	out = append(out, c.validateBump(at)...)
	out = append(out, c.validateWork(at)...)
	r := c.Retention
	between("retention.interval", r.Interval, second, Day)
	between("retention.keep", r.Keep, 0, century)
	between("retention.warn_within", r.WarnWithin, 0, century)
	between("usage.granularity", c.Usage.Granularity, second, Day)
	between("collect.grace", c.Collect.Grace, second, 30*Day)
	for i, p := range r.Policies {
		key := fmt.Sprintf("retention.policies#%d", i+1)
		if len(p.Repositories) == 0 {
			fail(key, "policy %d names no repositories: write repositories: \"**\" for all", i+1)
		}
		between(key+".after", p.After, second, century)
		if p.UntaggedAfter != 0 {
			between(key+".untagged_after", p.UntaggedAfter, second, century)
		}
		between(key+".min_age", p.MinAge, 0, century)
		if p.KeepLast < 0 {
			fail(key+".keep_last", "%d is negative: write how many tags to keep, or 0", p.KeepLast)
		}
		if p.MaxBytes < 0 {
			fail(key+".max_bytes", "%s is negative: write a size such as 100GiB", p.MaxBytes)
		}
		if p.Name != "" {
			for j, q := range r.Policies[:i] {
				if q.Name == p.Name {
					fail(key+".name", "policy %d is called %q too: choose another name", j+1, p.Name)
					break
				}
			}
		}
	}
	return append(out, unreachable(r.Policies, at)...)
}

// hostRE is a host name or address, perhaps with a port, as it stands in
// references of images.
var hostRE = regexp.MustCompile(`^[a-z0-9]+([.-]+[a-z0-9]+)*(:[0-9]{1,5})?$`)

func (c *Config) validateMirrors(at func(key, format string, args ...any) Problem) (out []Problem) {
	for i, m := range c.Mirrors {
		key := fmt.Sprintf("mirrors#%d", i+1)
		fail := func(sub, format string, args ...any) { out = append(out, at(key+sub, format, args...)) }
		switch {
		case m.Host == "":
			fail("", "mirror %d names no host: write host: docker.io", i+1)
		case !hostRE.MatchString(m.Host):
			fail(".host", "%.80q is no host: write docker.io, ghcr.io or registry.example.org:5000, without https:// and without a path", m.Host)
		}
		for j, o := range c.Mirrors[:i] {
			if o.Host == m.Host && m.Host != "" {
				fail(".host", "mirror %d is of %s too: keep one of them", j+1, m.Host)
				break
			}
		}
		if m.URL != "" {
			u, err := url.Parse(m.URL)
			if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
				fail(".url", "%.80q: write http or https, the host and perhaps a port and a path, such as https://registry.example.org", m.URL)
			} else if u.User != nil {
				fail(".url", "it holds a password: write username, and password_file or password_env")
			}
		}
		if m.TTL < Duration(time.Second) || m.TTL > Day {
			fail(".ttl", "%s is out of bounds: choose from 1s to 1d", m.TTL)
		}
		if m.MaxBlob <= 0 {
			fail(".max_blob", "%s: write a size such as 64GiB", m.MaxBlob)
		}
		password := m.PasswordFile != "" || m.PasswordEnv != ""
		switch {
		case m.PasswordFile != "" && m.PasswordEnv != "":
			fail(".password_env", "password_file is set too: keep one of them")
		case m.Username != "" && !password:
			fail(".username", "its password is missing: name password_file or password_env")
		case m.Username == "" && password:
			fail("", "mirror %d has a password and no username: write whose it is", i+1)
		}
	}
	return out
}

var (
	clusterRE = regexp.MustCompile(`^[a-z0-9._-]{1,64}$`)
	// A cluster that runs work is the value of a label there.
	poolRE    = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)
	accountRE = regexp.MustCompile(`^[a-z0-9.-]+/[a-z0-9.-]+$`)
)

func (c *Config) validateClusters(at func(key, format string, args ...any) Problem) (out []Problem) {
	for i, k := range c.Clusters {
		key := fmt.Sprintf("clusters#%d", i+1)
		fail := func(sub, format string, args ...any) { out = append(out, at(key+sub, format, args...)) }
		switch {
		case k.Name == "":
			fail("", "cluster %d has no name: write name: prod", i+1)
		case !clusterRE.MatchString(k.Name):
			fail(".name", "%.80q: use 1 to 64 of a-z, 0-9, '.', '_' and '-'", k.Name)
		}
		for j, o := range c.Clusters[:i] {
			if o.Name == k.Name && k.Name != "" {
				fail(".name", "cluster %d has this name too: keep one of them", j+1)
				break
			}
		}
		if k.Issuer == "" && k.Name != "" {
			fail("", "cluster %d has no issuer: kubectl get --raw /.well-known/openid-configuration shows it", i+1)
		}
		if k.JWKS == "" && k.Name != "" {
			fail("", "cluster %d has no jwks, the keys its tokens are verified with: name the file with what kubectl get --raw /openid/v1/jwks prints", i+1)
		} else if strings.Contains(k.JWKS, "://") {
			if u, err := url.Parse(k.JWKS); err != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) || u.Hostname() == "" || u.User != nil {
				fail(".jwks", "%.80q: write https://host/path: whoever changes what comes from there can sign on as anybody", k.JWKS)
			}
		}
		if k.Audience == "" {
			fail(".audience", "no audience: tokens for anybody would be accepted; remove the key to have cairn")
		}
		for _, a := range k.Agent {
			if !accountRE.MatchString(a) {
				fail(".agent", "%.80q: write namespace/name of a ServiceAccount", a)
			}
		}
		if len(k.Agent) == 0 && len(k.Pull) == 0 && k.Name != "" {
			fail("", "cluster %d may do nothing: write agent, who reports for it, or pull, what it may pull", i+1)
		}
	}
	return out
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// unreachable finds policies that no repository ever comes to, because those
// before them take all that they name.
func unreachable(ps []Policy, at func(key, format string, args ...any) Problem) (out []Problem) {
	for i, p := range ps {
		why := fmt.Sprintf("policy %d takes everything", coveredBy("**", ps[:i])+1)
		if coveredBy("**", ps[:i]) < 0 {
			var by []string
			for _, g := range p.Repositories {
				j := coveredBy(g, ps[:i])
				if j < 0 {
					by = nil
					break
				}
				if name := fmt.Sprintf("policy %d", j+1); !slices.Contains(by, name) {
					by = append(by, name)
				}
			}
			if by == nil {
				continue
			}
			verb := " takes"
			if len(by) > 1 {
				verb = " take"
			}
			why = strings.Join(by, " and ") + verb + " everything it names"
		}
		out = append(out, at(fmt.Sprintf("retention.policies#%d", i+1),
			"policy %d can never match: %s; the first match wins, so put the narrower policy first", i+1, why))
	}
	return out
}

// coveredBy returns the first policy that takes all that g matches, or -1. It
// knows equal globs and what begins with the text before a final "**"; that is
// how people write them.
func coveredBy(g string, ps []Policy) int {
	for j, p := range ps {
		for _, h := range p.Repositories {
			prefix, all := strings.CutSuffix(h, "**")
			if g == h || all && !strings.ContainsAny(prefix, "*?") && strings.HasPrefix(g, prefix) {
				return j
			}
		}
	}
	return -1
}

// checkGlob refuses globs that can match no name of their kind.
func checkGlob(kind, g string) error {
	if err := image.CheckGlob(g); err != nil {
		return err
	}
	for _, c := range g {
		lower := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("._-*?", c)
		switch {
		case lower, kind == "repository" && c == '/', kind == "tag" && c >= 'A' && c <= 'Z':
		case c >= 'A' && c <= 'Z':
			return fmt.Errorf("glob %.80q can never match: names of repositories have no upper-case letters", g)
		case strings.ContainsRune("[]{},!", c):
			return fmt.Errorf("glob %.80q: %q is not special here and no %s has it: use *, ** and ?, and a list for several", g, c, kind)
		default:
			return fmt.Errorf("glob %.80q can never match: no %s has the character %q", g, kind, c)
		}
	}
	return nil
}
