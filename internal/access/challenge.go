package access

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/image"
)

const basicChallenge = `Basic realm="cairn"`

// Challenge sets WWW-Authenticate for a 401: for paths under /v2/ it sends
// clients to the token endpoint for the actions on the repository (none when
// empty), for others it asks for Basic. In open mode it does nothing.
func (g *Guard) Challenge(h http.Header, r *http.Request, repository string, actions ...Action) {
	if g.cfg.Open {
		return
	}
	realm, ok := g.realm(r)
	if !ok || r.URL.Path != "/v2" && !strings.HasPrefix(r.URL.Path, "/v2/") {
		h.Set("WWW-Authenticate", basicChallenge)
		return
	}
	v := `Bearer realm="` + realm + `",service="` + g.cfg.Service + `"`
	// A repository comes from the path: what is not a name is not repeated
	// into a header.
	if len(actions) > 0 && image.CheckRepository(repository) == nil {
		v += `,scope="` + scope{repository, actions}.String() + `"`
	}
	h.Set("WWW-Authenticate", v)
}

// realm is the address of the token endpoint as the client can reach it.
func (g *Guard) realm(r *http.Request) (string, bool) {
	if g.external != nil {
		return (&url.URL{Scheme: g.external.Scheme, Host: g.external.Host, Path: TokenPath}).String(), true
	}
	// The client wrote Host; nothing but a host goes back into a header.
	if !validHost(r.Host) {
		return "", false
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + TokenPath, true
}

// validHost reports whether s is a DNS name or an IP address with an optional port.
func validHost(s string) bool {
	if s == "" || len(s) > 260 {
		return false
	}
	host, ok := hostname(s)
	if !ok {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for _, c := range []byte(host) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return host != ""
}

// hostname returns the host of host[:port], without the brackets of IPv6.
func hostname(s string) (string, bool) {
	host, port, hasPort := s, "", false
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", false
		}
		a, err := netip.ParseAddr(s[1:end])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", false
		}
		host = s[1:end]
		rest := s[end+1:]
		if rest == "" {
			return host, true
		}
		if port, hasPort = strings.CutPrefix(rest, ":"); !hasPort {
			return "", false
		}
	} else {
		host, port, hasPort = strings.Cut(s, ":")
	}
	if hasPort {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", false
		}
	}
	return host, true
}
