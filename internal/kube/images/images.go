// Package images finds out what images of tasks say of how they are run, with
// the accounts that the pods of a namespace have.
//
// It owns where is looked, and in which order: our own registry, in this
// process and without any request; then the registry that the image names, as
// whoever the namespace's pull secrets say, one after the other, and at last as
// nobody. It promises that an error names the image, the registry and the
// secrets that were tried, and that a secret is shown to the registry it is for
// and to nobody else. It keeps no secret, and fetches no layer.
package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/kube/jobs"
	"cairn.dev/cairn/internal/outbound"
	"cairn.dev/cairn/internal/pool"
	"cairn.dev/cairn/internal/pool/source"
	"cairn.dev/cairn/internal/upstream"
)

// Secrets reads what a cluster has; [jobs.Controller] does.
type Secrets interface {
	// PullSecrets are the names of those that pods of a namespace get from
	// their service account.
	PullSecrets(ctx context.Context, namespace string) ([]string, error)
	// PullSecret is the content of one: a .dockerconfigjson or a .dockercfg.
	PullSecret(ctx context.Context, namespace, name string) ([]byte, error)
}

// Config of a [Finder].
type Config struct {
	// Own finds what is in our registry; nil for none.
	Own pool.Images
	// Secrets of the cluster; nil: registries are asked as nobody.
	Secrets Secrets
	Clock   clock.Clock
	// Configured are registries that are somewhere else than their host says.
	Configured map[string]upstream.Config
}

// Finder implements [jobs.Images].
type Finder struct{ cfg Config }

// New makes a finder. It contacts nobody.
func New(c Config) *Finder { return &Finder{c} }

// platforms are tried in this order: what an image says of how it is run
// hardly ever differs between them.
func platforms() []image.Platform {
	p := []image.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	for _, a := range []string{"amd64", "arm64"} {
		if a != runtime.GOARCH {
			p = append(p, image.Platform{OS: "linux", Architecture: a})
		}
	}
	return p
}

// Find implements [jobs.Images].
func (f *Finder) Find(ctx context.Context, namespace, reference string, secrets []string) (jobs.Image, error) {
	if f.cfg.Own != nil {
		found, err := f.cfg.Own.Find(ctx, reference)
		if err == nil {
			return inspect(ctx, reference, found)
		}
		if !errors.Is(err, pool.ErrNoImage) {
			return jobs.Image{}, fmt.Errorf("look up image %s in our registry: %w", reference, err)
		}
	}
	host, ref, err := source.Parse(reference)
	if err != nil {
		return jobs.Image{}, fmt.Errorf("%w %s: %w", jobs.ErrImage, reference, err)
	}
	if host == "" {
		host = hub
	}
	if host == hub && !strings.Contains(ref.Repository, "/") {
		ref.Repository = "library/" + ref.Repository
	}
	accounts, tried, err := f.accounts(ctx, namespace, host, secrets)
	if err != nil {
		return jobs.Image{}, fmt.Errorf("look up image %s: %w", reference, err)
	}
	var last error
	for _, a := range accounts {
		found, err := f.ask(ctx, host, ref, a)
		if err == nil {
			return inspect(ctx, reference, found)
		}
		last = err
	}
	as := "as nobody: namespace " + namespace + " has no pull secret for it"
	if len(tried) > 0 {
		as = "with the pull secrets " + strings.Join(tried, ", ") + " of namespace " + namespace + ", and as nobody"
	}
	err = fmt.Errorf("image %s: its task names no command, and what the image runs could not be read from registry %s (%s): %w", reference, host, as, last)
	var e *upstream.Error
	if errors.As(last, &e) && (e.Kind == upstream.Busy || e.Kind == upstream.Unreachable && !outbound.Never(e)) {
		return jobs.Image{}, err
	}
	return jobs.Image{}, errors.Join(jobs.ErrImage, err)
}

const hub = "docker.io"

func (f *Finder) ask(ctx context.Context, host string, ref image.Reference, a upstream.Account) (pool.Found, error) {
	r, err := source.NewRemote(source.RemoteConfig{Keychain: one{a}, Clock: f.cfg.Clock, Configured: f.cfg.Configured})
	if err != nil {
		return pool.Found{}, err
	}
	defer r.Close()
	return r.Find(ctx, host, ref)
}

// one is a keychain with one account, which is only used for one host.
type one struct{ account upstream.Account }

// Account implements [source.Keychain].
func (o one) Account(context.Context, string) (upstream.Account, error) { return o.account, nil }

func inspect(ctx context.Context, reference string, found pool.Found) (jobs.Image, error) {
	var first error
	for _, p := range platforms() {
		i, err := pool.Inspect(ctx, found, p)
		if err == nil {
			return jobs.Image{Entrypoint: i.Entrypoint, Command: i.Command, User: i.User}, nil
		}
		if !errors.Is(err, pool.ErrNoImage) {
			return jobs.Image{}, fmt.Errorf("look up image %s: %w", reference, err)
		}
		if first == nil {
			first = err
		}
	}
	return jobs.Image{}, fmt.Errorf("%w %s: %w", jobs.ErrImage, reference, first)
}

// accounts are those for a host, in the order in which they are tried: nobody
// comes last. tried names the secrets that they are from.
func (f *Finder) accounts(ctx context.Context, namespace, host string, secrets []string) (out []upstream.Account, tried []string, err error) {
	if f.cfg.Secrets != nil {
		more, err := f.cfg.Secrets.PullSecrets(ctx, namespace)
		if err != nil {
			return nil, nil, fmt.Errorf("find the pull secrets of namespace %s: %w", namespace, err)
		}
		for _, s := range more {
			if !slices.Contains(secrets, s) {
				secrets = append(slices.Clip(secrets), s)
			}
		}
		for _, s := range secrets {
			b, err := f.cfg.Secrets.PullSecret(ctx, namespace, s)
			if err != nil {
				// Kubernetes pulls without a secret that is not there, too.
				tried = append(tried, s+" (which cannot be read)")
				continue
			}
			for _, a := range Accounts(b, host) {
				out = append(out, a)
				tried = append(tried, s)
			}
		}
	}
	return append(out, upstream.Account{}), slices.Compact(tried), nil
}

// Accounts are those that a docker configuration has for a host. Its form is
// {"auths": {"https://host/path": {"auth": "base64 of user:password"}}}, or
// the older one without "auths".
func Accounts(b []byte, host string) (out []upstream.Account) {
	type entry struct {
		Username, Password, Auth string
		IdentityToken            string `json:"identitytoken"`
	}
	var c struct {
		Auths map[string]entry `json:"auths"`
	}
	if json.Unmarshal(b, &c) != nil {
		return nil
	}
	if c.Auths == nil && json.Unmarshal(b, &c.Auths) != nil {
		return nil
	}
	var names []string
	for name := range c.Auths {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !sameHost(name, host) {
			continue
		}
		e := c.Auths[name]
		if e.Auth != "" {
			if raw, err := base64.StdEncoding.DecodeString(e.Auth); err == nil {
				e.Username, e.Password, _ = strings.Cut(string(raw), ":")
			}
		}
		switch {
		case e.IdentityToken != "":
			out = append(out, upstream.Account{Username: upstream.IdentityToken, Password: e.IdentityToken})
		case e.Username != "":
			out = append(out, upstream.Account{Username: e.Username, Password: e.Password})
		}
	}
	return out
}

// sameHost says whether an entry, which may be an URL and have a path, is for a
// host. Docker Hub has an address of its own from long ago.
func sameHost(entry, host string) bool {
	entry = strings.TrimPrefix(strings.TrimPrefix(entry, "https://"), "http://")
	entry, _, _ = strings.Cut(entry, "/")
	if host == hub && (entry == "index.docker.io" || entry == "registry-1.docker.io") {
		return true
	}
	if rest, ok := strings.CutPrefix(entry, "*."); ok { // as kubelets read them: one label
		_, tail, found := strings.Cut(host, ".")
		return found && tail == rest
	}
	return entry == host
}
