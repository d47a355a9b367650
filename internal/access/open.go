package access

import (
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// CheckOpen refuses open mode on an address that other machines can reach.
// Call it with the address of the listener once it listens, because only then a
// name such as localhost is known to be loopback; and before, for an early answer.
func CheckOpen(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("open mode on %q: not an address: write host:port", addr)
	}
	if loopbackHost(host) {
		return nil
	}
	return fmt.Errorf("open mode on %s: everybody who reaches this address could push and delete: listen on 127.0.0.1, or leave open mode and create accounts", addr)
}

// loopbackHost reports whether the host, without port, names this machine only.
func loopbackHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	// RFC 6761: localhost and what ends in it never leave the machine.
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Protect keeps web pages from using the caller's browser against next.
//
// In open mode there are no credentials, so any page the user visits could
// drive the server by their browser. It therefore refuses requests for a host
// that is not loopback (a page can point its own name at 127.0.0.1), from
// another origin, marked by the browser as coming from another site, and calls
// under /api/ with a body or an unsafe method whose type is none that browsers
// send across origins only after asking, such as application/json. Pushes have other
// types; a page cannot send those either, since they all use PUT, PATCH or a
// POST whose Origin is foreign.
//
// Otherwise it refuses requests that change something and are marked as coming
// from another site: browsers repeat Basic credentials by themselves.
//
// The ResponseWriter goes through as it is, for sendfile.
func (g *Guard) Protect(next http.Handler) http.Handler {
	check := g.checkClosed
	if g.cfg.Open {
		check = checkOpenRequest
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, why := check(r); status != 0 {
			problem(w, r, status, why)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Guard) checkClosed(r *http.Request) (int, string) {
	if !safeMethod(r.Method) && foreignSite(r) {
		return http.StatusForbidden, crossSite
	}
	return 0, ""
}

const crossSite = "the request comes from a page of another site: open Cairn's address yourself"

func checkOpenRequest(r *http.Request) (int, string) {
	host, ok := hostname(r.Host)
	if !ok || !loopbackHost(host) {
		return http.StatusForbidden, fmt.Sprintf("open mode answers to localhost, 127.0.0.1 and [::1], not to the host %.80q: use one of those, or run without open mode", r.Host)
	}
	if foreignSite(r) {
		return http.StatusForbidden, crossSite
	}
	for _, o := range r.Header["Origin"] {
		u, err := url.Parse(o)
		if err != nil || !strings.EqualFold(u.Host, r.Host) || u.Scheme != "http" && u.Scheme != "https" {
			return http.StatusForbidden, fmt.Sprintf("the request comes from a page of %.80q: open mode only takes those of its own address", o)
		}
	}
	if strings.HasPrefix(r.URL.Path, "/api/") && (!safeMethod(r.Method) || r.ContentLength != 0) && !asked(r.Header.Get("Content-Type")) {
		return http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Type is %.80q: send the header Content-Type: application/json, even without a body", r.Header.Get("Content-Type"))
	}
	return 0, ""
}

// foreignSite reports whether a browser says that another site made the request.
// same-site is another port or a sister domain: another program all the same.
func foreignSite(r *http.Request) bool {
	for _, v := range r.Header["Sec-Fetch-Site"] {
		if v != "same-origin" && v != "none" {
			return true
		}
	}
	return false
}

func safeMethod(m string) bool {
	return m == http.MethodGet || m == http.MethodHead || m == http.MethodOptions
}

// asked reports whether a type of contents is one that our API takes and that
// browsers send to another origin only after asking that. They do not ask for
// forms and plain text.
func asked(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	switch t {
	case "application/json", "application/yaml", "application/octet-stream":
		return err == nil
	}
	return err == nil && strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json")
}

// problem refuses a request in the form its path speaks.
func problem(w http.ResponseWriter, r *http.Request, status int, why string) {
	if strings.HasPrefix(r.URL.Path, "/v2/") {
		writeJSON(w, status, "application/json", map[string]any{"errors": []map[string]string{{"code": "DENIED", "message": why}}})
		return
	}
	writeJSON(w, status, "application/problem+json", map[string]any{"title": http.StatusText(status), "status": status, "detail": why})
}
