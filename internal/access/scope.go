package access

import (
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// Limits of one request for a token. They keep the token below
// maxAuthorization, whatever is asked for.
const (
	maxScopes     = 32
	maxScopeBytes = 8 << 10
)

// A scope is what a token is for: actions on one repository.
type scope struct {
	Repository string   `json:"r"`
	Actions    []Action `json:"a"`
}

// String is the scope in the form of the token specification.
func (s scope) String() string {
	b := append(make([]byte, 0, 64), "repository:"...)
	b = append(b, s.Repository...)
	for i, a := range s.Actions {
		c := byte(',')
		if i == 0 {
			c = ':'
		}
		b = append(append(b, c), a...)
	}
	return string(b)
}

// parseScopes reads values of the scope parameter: each may hold several
// scopes separated by spaces, each type:name:action[,action…]. Types other
// than repository and unknown actions are ignored, as the specification asks:
// they are simply not granted. The result names each repository once.
func parseScopes(values []string) ([]scope, error) {
	var out []scope
	n, total := 0, 0
	for _, v := range values {
		if total += len(v); total > maxScopeBytes {
			return nil, fmt.Errorf("scopes of more than %d bytes: ask for fewer repositories in one token", maxScopeBytes)
		}
		for _, f := range strings.Fields(v) {
			if n++; n > maxScopes {
				return nil, fmt.Errorf("more than %d scopes: ask for fewer repositories in one token", maxScopes)
			}
			s, ok, err := parseScope(f)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			i := slices.IndexFunc(out, func(o scope) bool { return o.Repository == s.Repository })
			if i < 0 {
				out = append(out, s)
				continue
			}
			for _, a := range s.Actions {
				if !slices.Contains(out[i].Actions, a) {
					out[i].Actions = append(out[i].Actions, a)
				}
			}
		}
	}
	return out, nil
}

func parseScope(s string) (sc scope, ok bool, err error) {
	// The name may hold colons (a host with a port), type and actions not.
	first, last := strings.IndexByte(s, ':'), strings.LastIndexByte(s, ':')
	if first <= 0 || first == last {
		return sc, false, fmt.Errorf("scope %.80q: write repository:NAME:pull,push,delete", s)
	}
	typ, name := s[:first], s[first+1:last]
	// repository(plugin) says what the images are for; it changes no right.
	if typ, _, _ = strings.Cut(typ, "("); typ != "repository" || image.CheckRepository(name) != nil {
		return sc, false, nil
	}
	sc.Repository = name
	for a := range strings.SplitSeq(s[last+1:], ",") {
		for _, want := range []Action{Pull, Push, Delete} {
			if (a == string(want) || a == "*") && !slices.Contains(sc.Actions, want) {
				sc.Actions = append(sc.Actions, want)
			}
		}
	}
	return sc, len(sc.Actions) > 0, nil
}

// intersect keeps what of the scopes p may do.
func intersect(scopes []scope, p *Principal) []scope {
	out := []scope{}
	for _, s := range scopes {
		kept := scope{Repository: s.Repository}
		for _, a := range s.Actions {
			if p.Can(a, s.Repository) {
				kept.Actions = append(kept.Actions, a)
			}
		}
		if len(kept.Actions) > 0 {
			out = append(out, kept)
		}
	}
	return out
}
