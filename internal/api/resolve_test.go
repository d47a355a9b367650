package api_test

import (
	"fmt"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve/servetest"
)

func TestResolve(t *testing.T) {
	s := servetest.Start(t, nil, func(c *config.Config) { c.ExternalURL = "https://images.example.org" })
	web := s.Push(t, "app/web", "1.0", "one")
	lib := s.Push(t, "library/busybox", "1", "two")
	hub := s.Push(t, "docker.io/library/busybox", "1", "three")
	for _, tt := range []struct {
		ref  string
		want []any
	}{
		{"images.example.org/app/web:1.0", []any{web}},
		{"app/web:1.0", []any{web}},
		{"ghcr.io/app/web:1.0", []any{web}},
		{"ghcr.io/app/web@" + string(web), []any{web}},
		{"busybox:1", []any{hub, lib}},
		{"docker.io/busybox:1", []any{hub, lib}},
		{"images.example.org/busybox:1", nil},
		{"busybox", nil},
		{"app/web:", nil},
		{"", nil},
		{"../../etc", nil},
		{"app/web@sha256:12", nil},
	} {
		t.Run(strings.ReplaceAll(tt.ref, "/", "|"), func(t *testing.T) {
			want := []string{`"digests":{}`}
			if tt.want != nil {
				var q []string
				for _, d := range tt.want {
					q = append(q, fmt.Sprintf("%q", d))
				}
				want = []string{fmt.Sprintf(`{"digests":{%q:[%s]}}`, tt.ref, strings.Join(q, ","))}
			}
			scenario{name: "resolve", method: "POST", path: "/api/v1/resolve", body: fmt.Sprintf(`{"references":[%q]}`, tt.ref), status: 200, wants: want}.run(t, s, nil)
		})
	}
	many := strings.TrimSuffix(strings.Repeat(`"a",`, 1001), ",")
	scenario{name: "too many", method: "POST", path: "/api/v1/resolve", body: `{"references":[` + many + `]}`, status: 422, wants: []string{"1000"}}.run(t, s, nil)
}
