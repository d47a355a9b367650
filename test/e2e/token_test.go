package e2e_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/test/cluster"
)

// Only the agent of a cluster speaks for it: with tokens as real clusters make
// them, and as somebody who wants to stop or start deletion would make them.
func TestTokens(t *testing.T) {
	s := newWorld(t, cluster.Options{}, cluster.Options{})
	d := s.image("app/web:1")
	one, two := s.clusters[0], s.clusters[1]
	token := func(c *cluster.Cluster, namespace, account string, args ...string) string {
		return strings.TrimSpace(c.Kubectl(append([]string{"create", "token", account, "-n", namespace}, args...)...))
	}
	const long = "--duration=8000h"
	good := token(one, "cairn-agent", "cairn-agent", "--audience=cairn", long)
	other := token(two, "cairn-agent", "cairn-agent", "--audience=cairn", long)
	pod := token(one, "default", "default", "--audience=cairn", long)
	short := token(one, "cairn-agent", "cairn-agent", "--audience=cairn", "--duration=2h")
	early := token(one, "cairn-agent", "cairn-agent", long) // for the API server
	one.Apply(`{apiVersion: v1, kind: Secret, metadata: {name: old, namespace: cairn-agent, annotations: {kubernetes.io/service-account.name: cairn-agent}}, type: kubernetes.io/service-account-token}`)
	var endless string
	s.until("the token of a Secret", func() error {
		b, err := base64.StdEncoding.DecodeString(one.Kubectl("get", "secret", "old", "-n", "cairn-agent", "-o", "jsonpath={.data.token}"))
		if endless = string(b); err != nil || endless == "" {
			return fmt.Errorf("%q: %v", b, err)
		}
		return nil
	})
	part := func(token string, i int) string { return strings.Split(token, ".")[i] }
	edit := func(token, from, to string) string {
		b, err := base64.RawURLEncoding.DecodeString(part(token, 1))
		if err != nil || !strings.Contains(string(b), from) {
			t.Fatalf("no %q in %s: %v", from, b, err)
		}
		return part(token, 0) + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(string(b), from, to))) + "." + part(token, 2)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + part(good, 1) + "."

	statement := func(reporter, subject string) string {
		return fmt.Sprintf(`{"reporter": %q, "period": "1h", "complete": true, "statement": "s", "uses": [{"source": "container", "subject": %q, "digest": %q}]}`, reporter, subject, d)
	}
	body := statement("prod", "prod/default/Deployment/web")
	for _, c := range []struct {
		name, token, body string
		status            int
		says              string
	}{
		{"nobody", "", body, 401, ""},
		{"not a token", "eyJ.x.y", body, 401, "no cluster that is configured"},
		{"no signature", part(good, 0) + "." + part(good, 1) + ".", body, 401, "not signed by the cluster prod"},
		{"says it needs no signature", none, body, 401, ""},
		{"signature of another token", part(good, 0) + "." + part(good, 1) + "." + part(pod, 2), body, 401, "not signed by the cluster prod"},
		{"another account written into it", edit(pod, `default`, `cairn-agent`), body, 401, "not signed by the cluster prod"},
		{"another cluster written into it", edit(other, two.Server, one.Server), body, 401, "not signed by the cluster prod"},
		{"a later end written into it", edit(short, `"exp":`, `"exp":9`), body, 401, "not signed by the cluster prod"},
		{"for the API server", early, body, 401, "not for Cairn"},
		{"of another pod", pod, body, 401, "may do nothing here"},
		{"of a Secret, without an end", endless, body, 401, ""},
		{"another cluster in this one's name", other, body, 403, "may not speak for"},
		{"this one's workloads by another cluster", other, statement("prod2", "prod/default/Deployment/web"), 403, ""},
		{"a digest that is none", good, strings.Replace(body, string(d), "sha256:../../etc/passwd", 1), 400, "digest"},
		{"a digest of another length", good, strings.Replace(body, string(d), string(d)+"00", 1), 400, "digest"},
		{"a use without a digest", good, strings.Replace(body, string(d), "", 1), 400, "digest"},
		{"nothing wrong", short, body, 200, `"applied":true`},
		{"nothing wrong", good, body, 200, `"applied":true`},
		{"nothing wrong there", other, statement("prod2", "prod2/default/Deployment/web"), 200, `"applied":true`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.clock.Advance(time.Minute) // who fails often has to wait
			before := s.status().Reporters
			h := http.Header{"Content-Type": {"application/json"}}
			if c.token != "" {
				h.Set("Authorization", "Bearer "+c.token)
			}
			r := s.server.Send(t, http.MethodPost, "/api/v1/uses", h, []byte(c.body))
			if r.Status != c.status || !strings.Contains(r.Body, c.says) {
				t.Errorf("%d %s, want %d and %q", r.Status, strings.TrimSpace(r.Body), c.status, c.says)
			}
			if after := s.status().Reporters; c.status != 200 && after != before {
				t.Errorf("%d reporters, %d before", after, before)
			}
			// Nor does it pull or push by that.
			if r := s.server.Send(t, http.MethodPost, "/v2/app/web/blobs/uploads/", http.Header{"Authorization": h["Authorization"]}, nil); r.Status != 401 && r.Status != 403 {
				t.Errorf("a push answers %d", r.Status)
			}
			if r := s.server.Send(t, http.MethodGet, "/api/v1/tokens", http.Header{"Authorization": h["Authorization"]}, nil); r.Status != 401 && r.Status != 403 {
				t.Errorf("the list of accounts answers %d", r.Status)
			}
		})
	}

	// A million uses at once are too many, however small they are made.
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, `{"reporter": "prod", "uses": [`)
	for i := range 1_000_000 {
		if i > 0 {
			fmt.Fprint(z, ",")
		}
		fmt.Fprintf(z, `{"source": "container", "subject": "prod/a/Pod/p%d", "digest": %q}`, i, d)
	}
	fmt.Fprint(z, "]}")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	zh := http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}, "Authorization": {"Bearer " + good}}
	if r := s.server.Send(t, http.MethodPost, "/api/v1/uses", zh, packed.Bytes()); r.Status != http.StatusBadRequest || !strings.Contains(r.Body, "send the statement in parts") {
		t.Errorf("a million uses in %d bytes: %d %.300s", packed.Len(), r.Status, r.Body)
	}

	s.clock.Advance(2 * time.Hour)
	h := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + short}}
	if r := s.server.Send(t, http.MethodPost, "/api/v1/uses", h, []byte(body)); r.Status != 401 || !strings.Contains(r.Body, "the token expired at") {
		t.Errorf("an expired token: %d %s", r.Status, r.Body)
	}
}
