package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/door"
	"cairn.dev/cairn/internal/work/doorway"
)

type claimsKey struct{}

// Admitted are the claims of a request that came through [Door]: whoever guards
// what is behind it lets it in, because what it asks for is of its own run.
func Admitted(ctx context.Context) (Claims, bool) {
	c, ok := ctx.Value(claimsKey{}).(Claims)
	return c, ok
}

// Door takes what pods of these clusters ask, which tokens tell; everything
// else goes on to next. Asks and beats end here; logs and bytes go on, with
// their claims ([Admitted]), if their lease is of the claims' run.
func Door(next http.Handler, clusters ...*Dispatcher) http.Handler {
	of := map[string]*Dispatcher{}
	for _, d := range clusters {
		of[d.cfg.Cluster] = d
	}
	inner := door.New(pods{of}, nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !Is(secret) {
			next.ServeHTTP(w, r)
			return
		}
		c, err := verify(of, secret)
		if err != nil {
			doorway.Refuse(w, http.StatusUnauthorized, err)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), claimsKey{}, c))
		switch p := r.URL.Path; {
		case p == task.PathWork || p == task.PathBeat:
			inner.ServeHTTP(w, r)
		case p == task.PathLogs: // each frame has the token of its lease
			next.ServeHTTP(w, r)
		case p == task.PathArtifact || strings.HasPrefix(p, task.PathBlob):
			l, err := task.ParseLease(r.Header.Get(task.HeaderLease))
			if err == nil && !c.covers(l) {
				err = errors.New("the lease is of another run than the token")
			}
			if err != nil {
				doorway.Refuse(w, http.StatusForbidden, err)
				return
			}
			next.ServeHTTP(w, r)
		default:
			doorway.Refuse(w, http.StatusForbidden, fmt.Errorf("a worker in a pod may not ask for %s", p))
		}
	})
}

func verify(of map[string]*Dispatcher, secret string) (Claims, error) {
	err := ErrToken
	for _, d := range of { // they may have secrets of their own
		c, e := d.signer.Verify(secret, d.d.Clock.Now())
		if e == nil && of[c.Cluster] == d {
			return c, nil
		}
		if e != nil {
			err = e
		}
	}
	return Claims{}, err
}

// pods is what the door of asks and beats leads to.
type pods struct{ of map[string]*Dispatcher }

func (p pods) Work(ctx context.Context, a task.Ask) (task.Grant, error) {
	c, _ := Admitted(ctx)
	return p.of[c.Cluster].Work(ctx, c, a)
}

func (p pods) Beat(ctx context.Context, b task.Beat) (task.Beaten, error) {
	c, _ := Admitted(ctx)
	return p.of[c.Cluster].Beat(ctx, c, b)
}
