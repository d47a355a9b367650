// Package config is cairn.yaml: what can be set, what it is when it is not
// set, and what makes no sense.
//
// It owns the names, defaults, bounds and documentation of all settings, and
// the way durations and sizes are written, everywhere in Cairn. It promises that
// nothing in a file is silently ignored, and that everything wrong in it is
// told at once, each with its place and the cure. It holds no secrets: those
// come by files whose names stand here, or by the environment. It does not open
// the files and addresses it names, and acts on nothing.
package config

import (
	"os"
	"path/filepath"
	"time"
)

// Config is the whole of cairn.yaml. The doc tags are the documentation that
// [Example] and [Schema] print; example tags are values for keys that are
// empty by default.
type Config struct {
	Listen      string    `yaml:"listen" json:"listen" doc:"Address to listen on. Loopback by default: name an address, or :5080 for all, to be reached from other machines. CAIRN_LISTEN overrides it."`
	Data        string    `yaml:"data" json:"data" doc:"Folder of everything Cairn stores. By default $XDG_DATA_HOME/cairn, else ~/.local/share/cairn, and /var/lib/cairn for root. CAIRN_DATA overrides it. Relative to this file." example:"/var/lib/cairn"`
	Open        bool      `yaml:"open" json:"open" doc:"Ask nobody who they are: everybody who reaches the server may do everything. Only on a loopback address."`
	ExternalURL string    `yaml:"external_url" json:"external_url" doc:"Where clients reach this server. Needed behind a proxy that ends TLS; otherwise the host of each request is used." example:"https://registry.example.org"`
	TLS         TLS       `yaml:"tls" json:"tls" doc:"Serve HTTPS. Both or neither."`
	Log         Log       `yaml:"log" json:"log" doc:"Log lines go to standard error."`
	Access      Access    `yaml:"access" json:"access" doc:"Who may do what without an account. Accounts are made with cairn token create."`
	Mirrors     []Mirror  `yaml:"mirrors,omitempty" json:"mirrors,omitempty" doc:"Registries whose images are kept here as well, fetched when somebody pulls them. Clients name them by the host in front (this.server/docker.io/library/busybox) or, as containerd does, by ?ns=. See docs/mirrors.md."`
	Clusters    []Cluster `yaml:"clusters,omitempty" json:"clusters,omitempty" doc:"Kubernetes clusters whose ServiceAccounts sign on with the tokens their cluster gives them: its agent to report what runs, its nodes to pull. See docs/agent.md."`
	Retention   Retention `yaml:"retention" json:"retention" doc:"When unused images are deleted."`
	Usage       Usage     `yaml:"usage" json:"usage" doc:"The ledger of who used what."`
	Collect     Collect   `yaml:"collect" json:"collect" doc:"Removing the blobs that no image needs any more."`
	Bump        Bump      `yaml:"bump" json:"bump" doc:"Pull requests that move code to newer images. Nothing is looked at until a forge is named. See docs/bump.md."`
	Work        Work      `yaml:"work" json:"work" doc:"Runs of workflows, and who runs their tasks. See docs/work.md."`
}

// TLS names the files of a certificate.
type TLS struct {
	Cert string `yaml:"cert" json:"cert" doc:"File with the certificate chain, PEM. Relative to this file." example:"tls.crt"`
	Key  string `yaml:"key" json:"key" doc:"File with its private key, PEM. Relative to this file." example:"tls.key"`
}

// On reports whether HTTPS is served.
func (t TLS) On() bool { return t.Cert != "" }

// Log says what is logged.
type Log struct {
	Level  string `yaml:"level" json:"level" enum:"debug,info,warn,error" doc:"The least that is logged: debug, info, warn or error."`
	Format string `yaml:"format" json:"format" enum:"text,json" doc:"text or json."`
}

// Access is what needs no account.
type Access struct {
	AnonymousPull []string `yaml:"anonymous_pull" json:"anonymous_pull" glob:"repository" doc:"Repositories that may be pulled without an account, as globs." example:"[public/**]"`
}

// Cluster is one Kubernetes cluster whose ServiceAccount tokens are accepted.
type Cluster struct {
	Name     string   `yaml:"name" json:"name" required:"yes" doc:"What to call the cluster: it reports as cluster/NAME and nobody else may. a-z, 0-9, '.', '_' and '-'." example:"prod"`
	Issuer   string   `yaml:"issuer" json:"issuer" required:"yes" doc:"Issuer of the tokens: --service-account-issuer of its API server, or kubectl get --raw /.well-known/openid-configuration." example:"https://kubernetes.default.svc.cluster.local"`
	JWKS     string   `yaml:"jwks" json:"jwks" required:"yes" doc:"The issuer's public keys, as a file (what kubectl get --raw /openid/v1/jwks prints; relative to this file) or as an https:// address. Read again when a token does not fit." example:"prod.jwks"`
	CAFile   string   `yaml:"ca_file,omitempty" json:"ca_file,omitempty" doc:"File with the certificates to trust when jwks is an address, PEM; those of the system when not set. Relative to this file." example:"prod-ca.crt"`
	Audience string   `yaml:"audience" json:"audience" doc:"Whom the tokens must be meant for."`
	Agent    []string `yaml:"agent,omitempty" json:"agent,omitempty" doc:"ServiceAccounts that may report what the cluster uses, as namespace/name. One or a list." example:"[cairn-agent/cairn-agent]"`
	Pull     []string `yaml:"pull,omitempty" json:"pull,omitempty" glob:"repository" doc:"Repositories that every ServiceAccount of the cluster may pull, as globs: for kubelets with cairn credential-provider." example:"[\"**\"]"`
}

// Mirror is one registry whose images are kept here as well.
type Mirror struct {
	Host         string   `yaml:"host" json:"host" required:"yes" doc:"What clients call it, with its port if that is not the usual one." example:"docker.io"`
	URL          string   `yaml:"url,omitempty" json:"url,omitempty" doc:"Where it is, if not at https://<host>. Plain http is spoken only if it stands here." example:"https://registry-1.docker.io"`
	TTL          Duration `yaml:"ttl" json:"ttl" doc:"How long an answer about what a tag names holds."`
	Allow        []string `yaml:"allow" json:"allow" glob:"repository" doc:"The repositories there that may be fetched, as globs, without the host."`
	Username     string   `yaml:"username,omitempty" json:"username,omitempty" doc:"The account to sign on with. Needs one of the next two." example:"robot"`
	PasswordFile string   `yaml:"password_file,omitempty" json:"password_file,omitempty" doc:"File with its password, read again whenever it is needed. Relative to this file." example:"docker.io.password"`
	PasswordEnv  string   `yaml:"password_env,omitempty" json:"password_env,omitempty" doc:"Or the name of the environment variable with it."`
	CAFile       string   `yaml:"ca_file,omitempty" json:"ca_file,omitempty" doc:"File with certificates to trust besides the system's, PEM. Relative to this file." example:"ca.crt"`
	Offline      bool     `yaml:"offline" json:"offline" doc:"Never ask it. What is here is served, and its repositories here may be pushed to."`
	MaxBlob      Size     `yaml:"max_blob" json:"max_blob" doc:"Larger blobs are not fetched."`
}

// Retention says which images expire and when.
type Retention struct {
	Interval   Duration `yaml:"interval" json:"interval" doc:"How often to look for expired images."`
	Keep       Duration `yaml:"keep" json:"keep" doc:"How long an expired image can be restored before it is gone."`
	WarnWithin Duration `yaml:"warn_within" json:"warn_within" doc:"Pulls of an image that expires within this time carry a warning."`
	Policies   []Policy `yaml:"policies" json:"policies" doc:"The first policy whose repositories match decides; what none matches never expires. Without this key Cairn uses the policy below, and only plans until a reporter of uses is enrolled; with it, Cairn deletes. [] deletes nothing, ever."`
	// Explicit: the file has the key policies.
	Explicit bool `yaml:"-" json:"explicit"`
}

// Policy is how long the images of some repositories stay.
type Policy struct {
	Name          string   `yaml:"name,omitempty" json:"name,omitempty" doc:"What to call the policy in explanations." example:"services"`
	Repositories  []string `yaml:"repositories" json:"repositories" required:"yes" glob:"repository" doc:"Globs: * is any run of characters without /, ** any run, ? one. One or a list."`
	After         Duration `yaml:"after" json:"after" doc:"An image expires this long after its last use."`
	UntaggedAfter Duration `yaml:"untagged_after,omitempty" json:"untagged_after,omitempty" doc:"The same for images without a tag; as after when not set." example:"7d"`
	MinAge        Duration `yaml:"min_age,omitempty" json:"min_age,omitempty" doc:"No image younger than this since its push expires." example:"1d"`
	KeepLast      int      `yaml:"keep_last,omitempty" json:"keep_last,omitempty" doc:"So many of the newest tags of each repository never expire." example:"3"`
	Protect       []string `yaml:"protect,omitempty" json:"protect,omitempty" glob:"tag" doc:"Images with such a tag never expire. Globs." example:"[stable, v*]"`
	MaxBytes      Size     `yaml:"max_bytes,omitempty" json:"max_bytes,omitempty" doc:"Above this size in all, the least recently used images go early; never what is in use." example:"100GiB"`
}

// Usage is about the ledger.
type Usage struct {
	Granularity Duration `yaml:"granularity" json:"granularity" doc:"How much older than the truth the stored time of a use may be. At most a tenth of the shortest after is used."`
}

// Collect is about removing blobs.
type Collect struct {
	Grace Duration `yaml:"grace" json:"grace" doc:"A blob that a client was told about is kept this long, for the push it may belong to; an upload to which nothing is added, too."`
}

// Default is the configuration of an empty file.
func Default() *Config {
	c := base()
	c.Data = DefaultData()
	return c
}

// base is Default without what depends on the machine.
func base() *Config {
	return &Config{
		Listen: "127.0.0.1:5080",
		Log:    Log{Level: "info", Format: "text"},
		Retention: Retention{
			Interval:   Duration(time.Hour),
			Keep:       7 * Day,
			WarnWithin: 3 * Day,
			Policies:   []Policy{defaultPolicy()},
		},
		Bump:    Bump{Interval: Duration(time.Hour)},
		Work:    defaultWork(),
		Usage:   Usage{Granularity: Duration(time.Hour)},
		Collect: Collect{Grace: Day},
	}
}

// defaultPolicy is also what an entry of policies starts from. Its
// repositories have to be named there: see the validation.
func defaultPolicy() Policy { return Policy{Repositories: []string{"**"}, After: 30 * Day} }

// defaultMirror is what an entry of mirrors starts from. Its host has to be
// named.
func defaultMirror() Mirror {
	return Mirror{TTL: Duration(time.Minute), Allow: []string{"**"}, MaxBlob: 64 << 30}
}

// defaultCluster is what an entry of clusters starts from. Its name and issuer
// have to be given.
func defaultCluster() Cluster { return Cluster{Audience: "cairn"} }

// DefaultData is the data folder when none is set.
func DefaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/cairn"
	}
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "cairn")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "cairn")
	}
	return "cairn-data"
}
