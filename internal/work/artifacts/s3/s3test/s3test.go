// Package s3test is an object store for tests: strict about signatures, and
// made without the code that it tests.
//
// It owns a few buckets in memory. It promises to refuse what a real store
// refuses of the requests of package s3: a signature that covers too little or
// something else, a body that is not the one that was signed, a time that is
// off, an address that is not escaped as it has to be. It knows nothing but
// reading, writing and listing.
package s3test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Server is a store. Set its fields before it is asked.
type Server struct {
	Region string
	Keys   map[string]string // by ID
	Public map[string]bool   // buckets that anybody may read
	Now    func() time.Time
	Page   int // objects of a page; 1000 when 0

	mu      sync.Mutex
	objects map[string]map[string][]byte
}

// Set puts an object there.
func (s *Server) Set(bucket, key, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects == nil {
		s.objects = map[string]map[string][]byte{}
	}
	if s.objects[bucket] == nil {
		s.objects[bucket] = map[string][]byte{}
	}
	s.objects[bucket][key] = []byte(text)
}

// Object is what is there.
func (s *Server) Object(bucket, key string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.objects[bucket][key]
	return string(b), ok
}

func refuse(w http.ResponseWriter, status int, code, why string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Error><Code>%s</Code><Message>", code)
	_ = xml.EscapeText(w, []byte(why))
	fmt.Fprint(w, "</Message></Error>")
}

// ServeHTTP implements http.Handler; buckets are in the path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, 400, "IncompleteBody", err.Error())
		return
	}
	raw, rawQuery, _ := strings.Cut(r.RequestURI, "?")
	path, err := url.PathUnescape(raw)
	if err != nil || encode(path, "/") != raw {
		refuse(w, 400, "InvalidURI", raw+" is not escaped as it has to be")
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch auth := r.Header.Get("Authorization"); {
	case auth != "":
		if code, why := s.verify(r, auth, raw, rawQuery, body); code != "" {
			refuse(w, 403, code, why)
			return
		}
	case !s.Public[bucket] || r.Method != http.MethodGet:
		refuse(w, 403, "AccessDenied", "who are you?")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	objects, ok := s.objects[bucket]
	switch {
	case !ok:
		refuse(w, 404, "NoSuchBucket", bucket)
	case key == "" && r.Method == http.MethodGet && r.URL.Query().Get("list-type") == "2":
		s.list(w, r.URL.Query(), objects)
	case r.Method == http.MethodGet:
		b, ok := objects[key]
		if !ok {
			refuse(w, 404, "NoSuchKey", key)
			return
		}
		_, _ = w.Write(b)
	case r.Method == http.MethodPut && key != "" && r.ContentLength >= 0:
		objects[key] = body
	default:
		refuse(w, 405, "MethodNotAllowed", r.Method)
	}
}

func (s *Server) list(w http.ResponseWriter, q url.Values, objects map[string][]byte) {
	page := s.Page
	if page == 0 {
		page = 1000
	}
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil {
		page = min(page, n)
	}
	after := ""
	if t := q.Get("continuation-token"); t != "" {
		b, err := hex.DecodeString(strings.TrimPrefix(t, "+/"))
		if err != nil {
			refuse(w, 400, "InvalidArgument", "the token is none of ours")
			return
		}
		after = string(b)
	}
	var keys []string
	for k := range objects {
		if strings.HasPrefix(k, q.Get("prefix")) && k > after {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	more := len(keys) > page
	keys = keys[:min(len(keys), page)]
	fmt.Fprint(w, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`)
	if more {
		fmt.Fprintf(w, "<IsTruncated>true</IsTruncated><NextContinuationToken>+/%x</NextContinuationToken>", keys[len(keys)-1])
	}
	if q.Get("encoding-type") == "url" {
		fmt.Fprint(w, "<EncodingType>url</EncodingType>")
	}
	for _, k := range keys {
		name := k
		if q.Get("encoding-type") == "url" {
			name = url.QueryEscape(k)
		}
		fmt.Fprint(w, "<Contents><Key>")
		_ = xml.EscapeText(w, []byte(name))
		fmt.Fprintf(w, "</Key><Size>%d</Size></Contents>", len(objects[k]))
	}
	fmt.Fprint(w, "</ListBucketResult>")
}

// verify works the signature out from what came over the wire.
func (s *Server) verify(r *http.Request, auth, path, query string, body []byte) (code, why string) {
	fields := map[string]string{}
	rest, ok := strings.CutPrefix(auth, "AWS4-HMAC-SHA256 ")
	for f := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		fields[k] = v
	}
	scope := strings.Split(fields["Credential"], "/")
	if !ok || len(scope) != 5 || scope[3] != "s3" || scope[4] != "aws4_request" {
		return "AuthorizationHeaderMalformed", auth
	}
	secret, ok := s.Keys[scope[0]]
	if !ok {
		return "InvalidAccessKeyId", scope[0]
	}
	if scope[2] != s.Region {
		return "AuthorizationHeaderMalformed", "the region is " + s.Region
	}
	date := r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", date)
	if err != nil || !strings.HasPrefix(date, scope[1]) {
		return "AccessDenied", "the date is wrong"
	}
	if d := s.Now().Sub(at); d.Abs() > 15*time.Minute {
		return "RequestTimeTooSkewed", d.String()
	}
	sum := sha256.Sum256(body)
	if r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
		return "XAmzContentSHA256Mismatch", "the body is another"
	}
	names := strings.Split(fields["SignedHeaders"], ";")
	if !slices.IsSorted(names) || !slices.Contains(names, "host") {
		return "AuthorizationHeaderMalformed", "host is not signed"
	}
	for k := range r.Header {
		if k = strings.ToLower(k); strings.HasPrefix(k, "x-amz-") && !slices.Contains(names, k) {
			return "AccessDenied", k + " is not signed"
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n%s\n", r.Method, path)
	var parts []string
	for p := range strings.SplitSeq(query, "&") {
		if p != "" {
			k, v, _ := strings.Cut(p, "=")
			parts = append(parts, again(k)+"="+again(v))
		}
	}
	sort.Strings(parts)
	fmt.Fprintf(&text, "%s\n", strings.Join(parts, "&"))
	for _, n := range names {
		v := strings.Join(r.Header.Values(n), ",")
		if n == "host" {
			v = r.Host
		}
		fmt.Fprintf(&text, "%s:%s\n", n, strings.TrimSpace(v))
	}
	fmt.Fprintf(&text, "\n%s\n%s", fields["SignedHeaders"], r.Header.Get("X-Amz-Content-Sha256"))
	hashed := sha256.Sum256([]byte(text.String()))
	key := []byte("AWS4" + secret)
	for _, p := range []string{scope[1], scope[2], "s3", "aws4_request", "AWS4-HMAC-SHA256\n" + date + "\n" + strings.Join(scope[1:], "/") + "\n" + hex.EncodeToString(hashed[:])} {
		h := hmac.New(sha256.New, key)
		_, _ = io.WriteString(h, p)
		key = h.Sum(nil)
	}
	if fields["Signature"] != hex.EncodeToString(key) {
		return "SignatureDoesNotMatch", "it is signed for something else"
	}
	return "", ""
}

// again escapes what may be escaped otherwise.
func again(s string) string {
	u, err := url.QueryUnescape(s)
	if err != nil {
		return "bad"
	}
	return encode(u, "")
}

func encode(s, leave string) string {
	out := url.QueryEscape(s) // leaves the same characters alone, but writes a space as a plus
	out = strings.ReplaceAll(out, "+", "%20")
	if leave != "" {
		out = strings.ReplaceAll(out, url.QueryEscape(leave), leave)
	}
	return out
}
