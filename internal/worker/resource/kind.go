package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// kind is what the API server calls a kind of objects, and where they are.
type kind struct {
	root       string // /api/v1 or /apis/GROUP/VERSION
	group      string
	resource   string // in the plural
	name       string
	namespaced bool
}

// collection is the path of all objects of the kind in a namespace.
func (k *kind) collection(namespace string) string {
	if k.namespaced {
		return k.root + "/namespaces/" + namespace + "/" + k.resource
	}
	return k.root + "/" + k.resource
}

// found is what was found out about a kind, and when.
type found struct {
	kind kind
	at   time.Duration
}

const (
	believe  = 10 * time.Minute // how long that is believed
	maxKinds = 1000             // that are kept
	// A kind may be so new that not every API server knows it: it is looked for
	// so often, and so far apart.
	looks, lookAgain = 4, 2 * time.Second
	maxGroups        = 1000
)

// resources is an APIResourceList.
type resources struct {
	Resources []struct {
		Name, SingularName, Kind string
		Namespaced               bool
		ShortNames               []string
	}
}

// find looks a kind up once, and remembers it. key is what it is remembered by.
func (a *api) find(ctx context.Context, key string, look func() (*kind, error)) (*kind, error) {
	a.mu.Lock()
	f, ok := a.kinds[key]
	a.mu.Unlock()
	if ok && a.clock.Mono()-f.at < believe {
		return &f.kind, nil
	}
	var k *kind
	for n := 1; k == nil; n++ {
		var err error
		if k, err = look(); err != nil {
			return nil, err
		}
		if k == nil && n == looks {
			return nil, fmt.Errorf("the cluster has no %s: is its CustomResourceDefinition there?", key)
		}
		if k == nil && clock.Sleep(ctx, a.clock, lookAgain) != nil {
			return nil, context.Cause(ctx)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kinds) >= maxKinds || a.kinds == nil {
		a.kinds = map[string]found{}
	}
	a.kinds[key] = found{*k, a.clock.Mono()}
	return k, nil
}

// kindOf is the kind of an object that names it.
func (a *api) kindOf(ctx context.Context, version, name string, say func(string, ...any)) (*kind, error) {
	return a.find(ctx, "kind "+name+" of "+version, func() (*kind, error) {
		return a.among(ctx, version, say, func(_, _, kind string, _ []string) bool { return kind == name })
	})
}

// called is the kind that a word of a command line means: po, pods, Pod,
// deployments.apps.
func (a *api) called(ctx context.Context, word string, say func(string, ...any)) (*kind, error) {
	name, group, grouped := strings.Cut(strings.ToLower(word), ".")
	fits := func(plural, singular, kind string, short []string) bool {
		return plural == name || singular == name || strings.EqualFold(kind, name) || slices.Contains(short, name)
	}
	return a.find(ctx, "kind "+word, func() (*kind, error) {
		if !grouped {
			if k, err := a.among(ctx, "v1", say, fits); k != nil || err != nil {
				return k, err
			}
		}
		type preferred struct {
			Name             string
			PreferredVersion struct{ GroupVersion string }
		}
		var groups struct{ Groups []preferred }
		if err := a.do(ctx, call{method: http.MethodGet, path: "/apis"}, &groups, say); err != nil {
			return nil, fmt.Errorf("ask which kinds there are: %w", err)
		}
		for _, g := range groups.Groups[:min(len(groups.Groups), maxGroups)] {
			if grouped && g.Name != group {
				continue
			}
			of := g.PreferredVersion.GroupVersion
			if !grouped && a.silent(ctx, of) {
				continue // a server beside the API server that is away: the word may be another's
			}
			if k, err := a.among(ctx, of, say, fits); k != nil || err != nil {
				return k, err
			}
		}
		return nil, nil
	})
}

// silent reports whether nobody answers for a version now.
func (a *api) silent(ctx context.Context, version string) bool {
	r, is := errors.AsType[*refusal](a.once(ctx, call{method: http.MethodGet, path: "/apis/" + version}, &resources{}))
	return is && r.trial() > 0
}

// among looks among the kinds of one version; nil when none fits.
func (a *api) among(ctx context.Context, version string, say func(string, ...any), fits func(plural, singular, kind string, short []string) bool) (*kind, error) {
	root, group := "/apis/"+version, ""
	if !strings.Contains(version, "/") {
		root = "/api/" + version
	} else {
		group, _, _ = strings.Cut(version, "/")
	}
	var list resources
	err := a.do(ctx, call{method: http.MethodGet, path: root}, &list, say)
	if refused(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask which kinds %s has: %w", version, err)
	}
	for _, r := range list.Resources {
		if !strings.Contains(r.Name, "/") && fits(r.Name, r.SingularName, r.Kind, r.ShortNames) {
			return &kind{root: root, group: group, resource: r.Name, name: r.Kind, namespaced: r.Namespaced}, nil
		}
	}
	return nil, nil
}
