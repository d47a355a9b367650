package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/image"
)

// Bump says which code is moved to newer images.
type Bump struct {
	Interval   Duration   `yaml:"interval" json:"interval" doc:"How often code and other registries are looked at. What is pushed here, and what webhooks tell, is looked at at once. Code that could not be read for three intervals stops retention: nobody knows what it uses."`
	Aliases    []string   `yaml:"aliases,omitempty" json:"aliases,omitempty" doc:"Hosts by which code names this registry, besides those of external_url and listen." example:"[registry.internal:5080]"`
	Keys       []string   `yaml:"keys,omitempty" json:"keys,omitempty" doc:"Files with public keys that sign images (cosign.pub), PEM. Relative to this file." example:"[cosign.pub]"`
	Forges     []Forge    `yaml:"forges,omitempty" json:"forges,omitempty" doc:"Where code is kept."`
	Registries []Registry `yaml:"registries,omitempty" json:"registries,omitempty" doc:"Other registries that need an account or an address of their own. Those that need none are asked anyway."`
	Webhooks   []Hook     `yaml:"webhooks,omitempty" json:"webhooks,omitempty" doc:"Registries that tell of pushes, at /hooks/registry/NAME."`
}

// Forge is one place where code is kept.
type Forge struct {
	Name         string   `yaml:"name" json:"name" required:"yes" doc:"What to call it; its webhooks come to /hooks/forge/NAME. a-z, 0-9 and '-'." example:"github"`
	Kind         string   `yaml:"kind" json:"kind" required:"yes" enum:"github,gitlab,gitea,git" doc:"github, gitlab, gitea (and Forgejo), or git: any git server, where a branch is pushed and there are no pull requests." example:"github"`
	URL          string   `yaml:"url,omitempty" json:"url,omitempty" doc:"Where it is: https://git.example.org. Of github and gitlab the public one when not set; of git what stands before the names of repositories, such as ssh://git@host/srv." example:"https://git.example.org"`
	Repositories []string `yaml:"repositories" json:"repositories" required:"yes" doc:"Repositories that are looked at, as the forge spells them, or globs of them. Of kind git, names only. One or a list." example:"[acme/*]"`
	Interval     Duration `yaml:"interval,omitempty" json:"interval,omitempty" doc:"Instead of bump.interval." example:"15m"`
	TokenFile    string   `yaml:"token_file,omitempty" json:"token_file,omitempty" doc:"File with the token of the account that opens pull requests; of kind git the password for https. Relative to this file." example:"github.token"`
	TokenEnv     string   `yaml:"token_env,omitempty" json:"token_env,omitempty" doc:"Or the name of the environment variable with it."`
	Username     string   `yaml:"username,omitempty" json:"username,omitempty" doc:"Of kind git: the account for https."`
	AppID        string   `yaml:"app_id,omitempty" json:"app_id,omitempty" doc:"Of kind github: the App, instead of a token."`
	KeyFile      string   `yaml:"private_key_file,omitempty" json:"private_key_file,omitempty" doc:"File with the private key of the App, PEM; of kind git the private key for ssh. Relative to this file."`
	KnownHosts   string   `yaml:"known_hosts_file,omitempty" json:"known_hosts_file,omitempty" doc:"Of kind git: the keys of ssh servers; those of the system when not set. Relative to this file."`
	SecretFile   string   `yaml:"webhook_secret_file,omitempty" json:"webhook_secret_file,omitempty" doc:"File with the secret of its webhooks; without one they are refused. Relative to this file." example:"github.webhook"`
	CAFile       string   `yaml:"ca_file,omitempty" json:"ca_file,omitempty" doc:"File with certificates to trust besides the system's, PEM. Relative to this file."`
}

// Registry is an account at another registry.
type Registry struct {
	Host         string `yaml:"host" json:"host" required:"yes" doc:"What code calls it, with its port if that is not the usual one." example:"ghcr.io"`
	URL          string `yaml:"url,omitempty" json:"url,omitempty" doc:"Where it is, if not at https://<host>. Plain http is spoken only if it stands here."`
	Username     string `yaml:"username,omitempty" json:"username,omitempty" doc:"The account to sign on with. Needs one of the next two." example:"robot"`
	PasswordFile string `yaml:"password_file,omitempty" json:"password_file,omitempty" doc:"File with its password, read again whenever it is needed. Relative to this file." example:"ghcr.password"`
	PasswordEnv  string `yaml:"password_env,omitempty" json:"password_env,omitempty" doc:"Or the name of the environment variable with it."`
	CAFile       string `yaml:"ca_file,omitempty" json:"ca_file,omitempty" doc:"File with certificates to trust besides the system's, PEM. Relative to this file."`
}

// Hook is a registry that tells of pushes.
type Hook struct {
	Name       string `yaml:"name" json:"name" required:"yes" doc:"Its webhooks come to /hooks/registry/NAME. a-z, 0-9 and '-'." example:"hub"`
	Kind       string `yaml:"kind" json:"kind" required:"yes" enum:"distribution,dockerhub,ghcr,harbor,quay,ecr" doc:"Who sends them: distribution, dockerhub, ghcr, harbor, quay or ecr." example:"dockerhub"`
	Host       string `yaml:"host,omitempty" json:"host,omitempty" doc:"What code calls the registry, where its webhooks do not say it." example:"registry.example.org"`
	SecretFile string `yaml:"secret_file,omitempty" json:"secret_file,omitempty" doc:"File with their secret; without one anybody may say that there was a push, which costs a look. Relative to this file." example:"hub.webhook"`
}

// files adds the keys that name files.
func (b *Bump) files(to map[string]*string) {
	for i := range b.Keys {
		to[fmt.Sprintf("bump.keys#%d", i+1)] = &b.Keys[i]
		if len(b.Keys) == 1 { // a single one may stand without a list
			to["bump.keys"] = &b.Keys[i]
			delete(to, "bump.keys#1")
		}
	}
	for i := range b.Forges {
		f, key := &b.Forges[i], fmt.Sprintf("bump.forges#%d.", i+1)
		to[key+"token_file"], to[key+"private_key_file"], to[key+"known_hosts_file"] = &f.TokenFile, &f.KeyFile, &f.KnownHosts
		to[key+"webhook_secret_file"], to[key+"ca_file"] = &f.SecretFile, &f.CAFile
	}
	for i := range b.Registries {
		r, key := &b.Registries[i], fmt.Sprintf("bump.registries#%d.", i+1)
		to[key+"password_file"], to[key+"ca_file"] = &r.PasswordFile, &r.CAFile
	}
	for i := range b.Webhooks {
		to[fmt.Sprintf("bump.webhooks#%d.secret_file", i+1)] = &b.Webhooks[i].SecretFile
	}
}

var (
	pathNameRE   = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	repositoryRE = regexp.MustCompile(`^[A-Za-z0-9._*?~-]+(/[A-Za-z0-9._*?~-]+)*$`)
)

func (c *Config) validateBump(at func(key, format string, args ...any) Problem) (out []Problem) {
	b := &c.Bump
	interval := func(key string, d Duration) {
		if d < Duration(time.Minute) || d > 7*Day {
			out = append(out, at(key, "%s is out of bounds: choose from 1m to 7d", d))
		}
	}
	interval("bump.interval", b.Interval)
	for i, h := range b.Aliases {
		if !hostRE.MatchString(h) {
			key := "bump.aliases"
			if len(b.Aliases) > 1 {
				key = fmt.Sprintf("%s#%d", key, i+1)
			}
			out = append(out, at(key, "%.80q is no host: write registry.internal or registry.internal:5080, without https:// and without a path", h))
		}
	}
	for i := range b.Forges {
		out = append(out, b.validateForge(i, at)...)
		if d := b.Forges[i].Interval; d != 0 {
			interval(fmt.Sprintf("bump.forges#%d.interval", i+1), d)
		}
	}
	out = append(out, b.validateRegistries(at)...)
	for i, h := range b.Webhooks {
		key := fmt.Sprintf("bump.webhooks#%d", i+1)
		fail := func(sub, format string, args ...any) { out = append(out, at(key+sub, format, args...)) }
		if !pathNameRE.MatchString(h.Name) {
			fail(sub(h.Name, ".name"), "webhook %d: %.80q is no name: use a-z, 0-9 and '-'", i+1, h.Name)
		}
		if slices.ContainsFunc(b.Webhooks[:i], func(o Hook) bool { return o.Name == h.Name }) {
			fail(".name", "another webhook is called %q, too: choose another name", h.Name)
		}
		switch {
		case h.Kind == "":
			fail("", "webhook %d has no kind: write who sends it, such as kind: dockerhub", i+1)
		case h.Host == "" && (h.Kind == "distribution" || h.Kind == "harbor"):
			fail("", "webhook %d has no host: write what code calls the registry, which its webhooks do not say", i+1)
		}
		if h.Host != "" && !hostRE.MatchString(h.Host) {
			fail(".host", "%.80q is no host: write registry.example.org, without https:// and without a path", h.Host)
		}
	}
	return out
}

// sub is the key itself when it has a value, else the entry around it.
func sub(value, key string) string {
	if value == "" {
		return ""
	}
	return key
}

func (b *Bump) validateForge(i int, at func(key, format string, args ...any) Problem) (out []Problem) {
	f, key := b.Forges[i], fmt.Sprintf("bump.forges#%d", i+1)
	fail := func(sub, format string, args ...any) { out = append(out, at(key+sub, format, args...)) }
	if !pathNameRE.MatchString(f.Name) {
		fail(sub(f.Name, ".name"), "forge %d: %.80q is no name: use a-z, 0-9 and '-'", i+1, f.Name)
	}
	if slices.ContainsFunc(b.Forges[:i], func(o Forge) bool { return o.Name == f.Name }) {
		fail(".name", "another forge is called %q, too: choose another name", f.Name)
	}
	if f.Kind == "" {
		if f.Name != "" {
			fail("", "forge %d has no kind: write github, gitlab, gitea or git", i+1)
		}
		return out
	}
	if len(f.Repositories) == 0 {
		fail("", "forge %d names no repositories: write repositories: [acme/*]", i+1)
	}
	for j, r := range f.Repositories {
		k := ".repositories"
		if len(f.Repositories) > 1 {
			k = fmt.Sprintf("%s#%d", k, j+1)
		}
		switch {
		case !repositoryRE.MatchString(r) || image.CheckGlob(r) != nil || !strings.Contains(r, "/") && r != "**":
			fail(k, "%.80q can be no repository: write owner/name, or a glob such as owner/*", r)
		case f.Kind == "git" && strings.ContainsAny(r, "*?"):
			fail(k, "%.80q: a git server does not list its repositories: name each", r)
		}
	}
	out = append(out, f.validateURL(at, key)...)
	app := f.AppID != "" || f.Kind == "github" && f.KeyFile != ""
	token := f.TokenFile != "" || f.TokenEnv != ""
	switch {
	case f.TokenFile != "" && f.TokenEnv != "":
		fail(".token_env", "token_file is set too: keep one of them")
	case app && f.Kind != "github":
		fail(".app_id", "only github has Apps: write token_file")
	case app && token:
		fail(".app_id", "a token is set too: keep one of them")
	case app && (f.AppID == "" || f.KeyFile == ""):
		fail("", "forge %d: app_id and private_key_file go together: write both", i+1)
	case !app && !token && f.Kind != "git":
		fail("", "forge %d has no account: name token_file or token_env%s", i+1, map[bool]string{true: ", or app_id and private_key_file"}[f.Kind == "github"])
	}
	for name, set := range map[string]bool{"username": f.Username != "", "known_hosts_file": f.KnownHosts != "", "private_key_file": f.KeyFile != "" && f.Kind != "github"} {
		if set && f.Kind != "git" {
			fail("."+name, "a forge of kind %s does not use it: remove the key", f.Kind)
		}
	}
	return out
}

func (f *Forge) validateURL(at func(key, format string, args ...any) Problem, key string) (out []Problem) {
	fail := func(sub, format string, args ...any) { out = append(out, at(key+sub, format, args...)) }
	if f.URL == "" {
		if f.Kind == "gitea" || f.Kind == "git" {
			fail("", "a forge of kind %s needs its url: write url: https://git.example.org", f.Kind)
		}
		return out
	}
	schemes := []string{"https", "http"}
	if f.Kind == "git" {
		schemes = append(schemes, "ssh", "file")
	}
	u, err := url.Parse(f.URL)
	switch {
	case err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" && u.Scheme != "file" || u.RawQuery != "" || u.Fragment != "":
		fail(".url", "%.80q: write one of %s, the host and perhaps a path, such as https://git.example.org", f.URL, strings.Join(schemes, ", "))
	case u.User != nil && (u.Scheme != "ssh" || hasPassword(u)):
		fail(".url", "it holds a password or an account: write token_file")
	}
	return out
}

func hasPassword(u *url.URL) bool {
	_, has := u.User.Password()
	return has
}

func (b *Bump) validateRegistries(at func(key, format string, args ...any) Problem) (out []Problem) {
	for i, r := range b.Registries {
		key := fmt.Sprintf("bump.registries#%d", i+1)
		fail := func(sub, format string, args ...any) { out = append(out, at(key+sub, format, args...)) }
		if !hostRE.MatchString(r.Host) {
			fail(sub(r.Host, ".host"), "registry %d: %.80q is no host: write ghcr.io or registry.example.org:5000, without https:// and without a path", i+1, r.Host)
		}
		if slices.ContainsFunc(b.Registries[:i], func(o Registry) bool { return o.Host == r.Host }) {
			fail(".host", "another registry is %s, too: keep one of them", r.Host)
		}
		if u, err := url.Parse(r.URL); r.URL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
			fail(".url", "%.80q: write http or https, the host and perhaps a port, such as https://registry.example.org", r.URL)
		}
		password := r.PasswordFile != "" || r.PasswordEnv != ""
		switch {
		case r.PasswordFile != "" && r.PasswordEnv != "":
			fail(".password_env", "password_file is set too: keep one of them")
		case (r.Username != "") != password:
			fail("", "registry %d: username and one of password_file and password_env go together", i+1)
		}
	}
	return out
}
