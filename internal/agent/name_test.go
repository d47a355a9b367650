package agent

import (
	"strings"
	"testing"
	"unicode/utf8"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

var hexA = strings.Repeat("a", 64)

func TestParseImageID(t *testing.T) {
	tests := []struct{ in, want string }{
		{"docker.io/library/busybox@sha256:" + hexA, "sha256:" + hexA},
		{"docker-pullable://busybox@sha256:" + hexA, "sha256:" + hexA},
		{"docker://sha256:" + hexA, "sha256:" + hexA},
		{"sha256:" + hexA, "sha256:" + hexA},
		{hexA, "sha256:" + hexA},
		{"localhost:5000/a/b@sha512:" + hexA + hexA, "sha512:" + hexA + hexA},
		{"docker.io/library/busybox:1", ""},
		{"busybox@sha256:abc", ""},
		{"busybox@sha256:" + strings.ToUpper(hexA), ""},
		{"sha1:" + hexA[:40], ""},
		{"", ""},
		{"@", ""},
		{"://", ""},
	}
	for _, tt := range tests {
		if got, ok := ParseImageID(tt.in); string(got) != tt.want || ok != (tt.want != "") {
			t.Errorf("ParseImageID(%q) = %q, %v; want %q", tt.in, got, ok, tt.want)
		}
	}
}

func FuzzParseImageID(f *testing.F) {
	f.Add("docker-pullable://busybox@sha256:" + hexA)
	f.Add(hexA)
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := ParseImageID(s); ok {
			if _, err := image.ParseDigest(string(d)); err != nil {
				t.Errorf("ParseImageID(%q) = %q: %v", s, d, err)
			}
		}
		if u := Subject(s, s, s, s); len(u) > usage.MaxSubject || utf8.ValidString(s) && !utf8.ValidString(u) {
			t.Errorf("Subject(%q…) has %d bytes or is no text", s, len(u))
		}
		if st := Stem(s); s != "" && st == "" {
			t.Errorf("Stem(%q) is empty", s)
		}
	})
}

func TestStem(t *testing.T) {
	tests := []struct{ in, want string }{
		{"web-7d4b9c8f6d-x2x4z", "web"},
		{"web-x2x4z", "web"},
		{"db-0", "db"},
		{"backup-29384720-7xk2p", "backup"},
		{"runner-ab12cd34ef-project-7-concurrent-0", "runner-ab12cd34ef-project-7-concurrent"},
		{"web", "web"},
		{"web-blue", "web-blue"},
		{"web-mysql", "web-mysql"},
		{"postgres-14-main", "postgres-14-main"},
		{"0", "0"},
		{"12-34", "12"},
		{"-7xk2p", "-7xk2p"},
		{"job_7f9c2b1e", "job"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := Stem(tt.in); got != tt.want {
			t.Errorf("Stem(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestSubject(t *testing.T) {
	if got := Subject("prod", "shop", "Deployment", "web"); got != "prod/shop/Deployment/web" {
		t.Error(got)
	}
	if got := Subject("host", "", "web"); got != "host/web" {
		t.Error(got)
	}
	if got := Subject(strings.Repeat("ä", 300)); len(got) > usage.MaxSubject || !utf8.ValidString(got) {
		t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
	}
}
