package s3

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/artifacts/s3/s3test"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The examples of "Signature Calculations for the Authorization Header" that
// sign what we sign.
func TestPublishedSignatures(t *testing.T) {
	for query, want := range map[string]string{
		"lifecycle=":          "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		"max-keys=2&prefix=J": "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
	} {
		req := httptest.NewRequest(http.MethodGet, "https://examplebucket.s3.amazonaws.com/?"+query, nil)
		sign(req, "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1", emptyHash, time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC))
		if got := req.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+want) {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		p         Place
		key, want string
	}{
		{Place{Bucket: "logs"}, "a/b", "https://logs.s3.us-east-1.amazonaws.com/a/b"},
		{Place{Bucket: "logs", Region: "eu-west-1"}, "a b+c%é", "https://logs.s3.eu-west-1.amazonaws.com/a%20b%2Bc%25%C3%A9"},
		{Place{Bucket: "my.logs", Region: "eu-west-1"}, "x", "https://s3.eu-west-1.amazonaws.com/my.logs/x"},
		{Place{Bucket: "logs", Endpoint: "http://minio:9000/"}, "//x/", "http://minio:9000/logs///x/"},
		{Place{Bucket: "logs", Endpoint: "https://[::1]:9000"}, "x?y#z", "https://[::1]:9000/logs/x%3Fy%23z"},
		{Place{Bucket: "../x"}, "x", ""}, {Place{Bucket: ""}, "x", ""}, {Place{Bucket: "10.0.0.1"}, "x", ""}, {Place{Bucket: "a/b"}, "x", ""}, {Place{Bucket: "abc@evil.org"}, "x", ""},
		{Place{Bucket: "logs", Region: "evil.org/"}, "x", ""}, {Place{Bucket: "logs", Endpoint: "ftp://x"}, "x", ""}, {Place{Bucket: "logs", Endpoint: "https://x/y"}, "x", ""},
		{Place{Bucket: "logs", Endpoint: "https://u:p@x"}, "x", ""}, {Place{Bucket: "logs", Endpoint: "minio:9000"}, "x", ""},
		{Place{Bucket: "logs"}, "a/../b", ""}, {Place{Bucket: "logs"}, "..", ""}, {Place{Bucket: "logs"}, "./a", ""}, {Place{Bucket: "logs"}, strings.Repeat("x", 1025), ""}, {Place{Bucket: "logs"}, "", ""},
	} {
		req, err := c.p.Get(t.Context(), c.key, now)
		if c.want == "" {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%+v %q: %v", c.p, c.key, err)
			}
		} else if err != nil || req.URL.String() != c.want {
			t.Errorf("%+v %q: %v %v, want %s", c.p, c.key, req, err, c.want)
		}
	}
}

var odd = []string{"plain", "with space", "a+b", "100%", "ü/é", "a//b", "q?x=1&y=2", "h#a", "star*(x)'!~", "tab\there", "semi;colon:@$,=", "back\\slash", "<&>\"", "line\nbreak"}

func TestRoundTrip(t *testing.T) {
	store := &s3test.Server{Region: "eu-1", Keys: map[string]string{"id": "secret"}, Public: map[string]bool{"open": true}, Now: func() time.Time { return now }, Page: 4}
	s := httptest.NewServer(store)
	defer s.Close()
	p := Place{Endpoint: s.URL, Region: "eu-1", Bucket: "logs", ID: "id", Key: "secret"}
	store.Set("logs", "seed", "")
	store.Set("open", "x", "y")
	do := func(req *http.Request, err error) (int, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for _, key := range odd {
		text := "text of " + key
		if code, body := do(p.Put(t.Context(), key, strings.NewReader(text), int64(len(text)), hexOf(text), now)); code != 200 {
			t.Errorf("put %q: %d %s", key, code, body)
		}
		if code, body := do(p.Get(t.Context(), key, now)); code != 200 || body != text {
			t.Errorf("get %q: %d %s", key, code, body)
		}
	}
	if code, _ := do(p.Put(t.Context(), "empty", strings.NewReader(""), 0, emptyHash, now)); code != 200 {
		t.Errorf("an empty object: %d", code)
	}
	var keys []string
	for token, pages := "", 0; ; pages++ {
		_, body := do(p.List(t.Context(), "", token, now))
		page, err := ReadPage(strings.NewReader(body))
		if err != nil || pages > 10 {
			t.Fatal(body, err)
		}
		for _, o := range page.Objects {
			keys = append(keys, o.Key)
		}
		if token = page.Next; token == "" {
			break
		}
	}
	want := append([]string{"empty", "seed"}, odd...)
	slices.Sort(want)
	if !slices.Equal(keys, want) {
		t.Errorf("listed %q, want %q", keys, want)
	}
	if code, body := do(Place{Endpoint: s.URL, Bucket: "open"}.Get(t.Context(), "x", now)); code != 200 || body != "y" {
		t.Errorf("anonymous: %d %s", code, body)
	}
	for name, c := range map[string]struct {
		p    Place
		at   time.Time
		code string
	}{
		"anonymous":    {Place{Endpoint: s.URL, Bucket: "logs"}, now, "AccessDenied"},
		"wrong key":    {Place{Endpoint: s.URL, Bucket: "logs", Region: "eu-1", ID: "id", Key: "other"}, now, "SignatureDoesNotMatch"},
		"wrong ID":     {Place{Endpoint: s.URL, Bucket: "logs", Region: "eu-1", ID: "other", Key: "secret"}, now, "InvalidAccessKeyId"},
		"wrong region": {Place{Endpoint: s.URL, Bucket: "logs", ID: "id", Key: "secret"}, now, "AuthorizationHeaderMalformed"},
		"wrong time":   {p, now.Add(time.Hour), "RequestTimeTooSkewed"},
		"no bucket":    {Place{Endpoint: s.URL, Bucket: "none", Region: "eu-1", ID: "id", Key: "secret"}, now, "NoSuchBucket"},
	} {
		_, body := do(c.p.Get(t.Context(), "plain", c.at))
		if code, why := ReadError(strings.NewReader(body)); code != c.code || why == "" {
			t.Errorf("%s: %s", name, body)
		}
	}
	// What was signed is what has to come.
	req, err := p.Put(t.Context(), "x", strings.NewReader("other"), 5, hexOf("thing"), now)
	if code, body := do(req, err); code != 403 || !strings.Contains(body, "Mismatch") {
		t.Errorf("another body: %d %s", code, body)
	}
	if _, err := p.Put(t.Context(), "x", nil, MaxPut+1, emptyHash, now); !errors.Is(err, ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
}

func hexOf(s string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(s)))
}

func TestBadPages(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":     "",
		"another":     "<Error><Code>x</Code></Error>",
		"no end":      "<ListBucketResult><Contents><Key>a</Key>",
		"no token":    "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
		"bad key":     "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%zz</Key></Contents></ListBucketResult>",
		"no key":      "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
		"long key":    "<ListBucketResult><Contents><Key>" + strings.Repeat("x", 2000) + "</Key></Contents></ListBucketResult>",
		"no size":     "<ListBucketResult><Contents><Key>a</Key><Size>many</Size></Contents></ListBucketResult>",
		"below zero":  "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
		"an entity":   `<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult><Contents><Key>&a;</Key></Contents></ListBucketResult>`,
		"HTML":        "<html><body>Sign in</body></html>",
		"far too big": "<ListBucketResult>" + strings.Repeat(" ", MaxPage) + "</ListBucketResult>",
	} {
		if p, err := ReadPage(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if code, _ := ReadError(strings.NewReader("<html>")); code != "" {
		t.Errorf("%q", code)
	}
}

func FuzzReadPage(f *testing.F) {
	f.Add([]byte(`<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>a%20b</Key><Size>3</Size></Contents></ListBucketResult>`))
	f.Add([]byte(`<Error><Code>NoSuchKey</Code></Error>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPage(bytes.NewReader(b))
		for _, o := range p.Objects {
			if err != nil || o.Key == "" || len(o.Key) > maxKey || o.Size < 0 {
				t.Errorf("%+v %v", o, err)
			}
		}
		ReadError(bytes.NewReader(b))
	})
}

// What is signed is what a server reads.
func FuzzEscape(f *testing.F) {
	for _, k := range odd {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := url.PathUnescape(escape(s, true)); err != nil || got != s {
			t.Errorf("%q %v", got, err)
		}
		if got, err := url.QueryUnescape(escape(s, false)); err != nil || got != s {
			t.Errorf("%q %v", got, err)
		}
		req, err := Place{Bucket: "logs", ID: "i", Key: "k", Endpoint: "https://x"}.Get(t.Context(), s, now)
		if err == nil && req.URL.RequestURI() != "/logs/"+escape(s, true) {
			t.Errorf("%q is asked for as %s", s, req.URL.RequestURI())
		}
	})
}
