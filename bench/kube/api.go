package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// api asks an API server, with nobody's brakes in between.
type api struct {
	base, token string
	http        *http.Client
}

func newAPI(base, ca, token string) (*api, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &api{base: base, token: token, http: &http.Client{Timeout: time.Minute,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}}, nil
}

// do makes a request; body may be nil.
func (a *api) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	kind := "application/json"
	if method == http.MethodPatch {
		kind = "application/merge-patch+json"
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Content-Type", kind)
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, b)
	}
	return b, err
}

// get reads an object or a list.
func (a *api) get(ctx context.Context, path string, into any) error {
	b, err := a.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// watch hands on the objects of a watch, those that are there already included,
// until it ends, as watches do.
func (a *api) watch(ctx context.Context, path string, each func(json.RawMessage) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	patient := http.Client{Transport: a.http.Transport}
	resp, err := patient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	for d := json.NewDecoder(resp.Body); ; {
		var e struct {
			Type   string
			Object json.RawMessage
		}
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case e.Type == "ADDED" || e.Type == "MODIFIED":
			if err := each(e.Object); err != nil {
				return err
			}
		}
	}
}

// writes are requests that change something, by verb and resource.
type writes map[string]int

// spent is what an API server says of itself.
type spent struct {
	writes writes
	cpu    time.Duration
}

// spent reads the API server's own counts.
func (a *api) spent(ctx context.Context) (s spent, err error) {
	b, err := a.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return s, err
	}
	cpu, err := metric(string(b), "process_cpu_seconds_total")
	if err != nil {
		return s, err
	}
	s.cpu = time.Duration(cpu * float64(time.Second))
	s.writes, err = parseWrites(string(b))
	return s, err
}

// parseWrites leaves out what nodes say of themselves (leases, their status):
// they say it, whatever runs there.
func parseWrites(metrics string) (writes, error) {
	out, found := writes{}, false
	for line := range strings.SplitSeq(metrics, "\n") {
		rest, ok := strings.CutPrefix(line, "apiserver_request_total{")
		if !ok {
			continue
		}
		found = true
		text, value, _ := strings.Cut(rest, "} ")
		label := map[string]string{}
		for pair := range strings.SplitSeq(text, ",") {
			k, v, _ := strings.Cut(pair, "=")
			label[k] = strings.Trim(v, `"`)
		}
		switch label["verb"] {
		case "POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION":
		default:
			continue
		}
		if label["resource"] == "leases" || label["resource"] == "nodes" {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("a count of requests: %q: %w", line, err)
		}
		what := label["verb"] + " " + label["resource"]
		if s := label["subresource"]; s != "" {
			what += "/" + s
		}
		out[what] += int(n)
	}
	if !found {
		return nil, errors.New("the API server's metrics have no apiserver_request_total")
	}
	return out, nil
}

// since is what was added.
func (w writes) since(before writes) writes {
	out := writes{}
	for k, n := range w {
		if n -= before[k]; n > 0 {
			out[k] = n
		}
	}
	return out
}

func (w writes) total() (n int) {
	for _, m := range w {
		n += m
	}
	return n
}

func (w writes) String() string {
	var all []string
	for _, k := range slices.SortedFunc(maps.Keys(w), func(a, b string) int { return w[b] - w[a] }) {
		all = append(all, fmt.Sprintf("%d %s", w[k], k))
	}
	return strings.Join(all, ", ")
}

// metric is the value of a metric without labels.
func metric(metrics, name string) (float64, error) {
	for line := range strings.SplitSeq(metrics, "\n") {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// fetch prints what an address answers: the benchmark calls itself with it, in
// the network of a machine that only that machine reaches.
func fetch(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
