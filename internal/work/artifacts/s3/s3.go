// Package s3 is as much of the S3 protocol as artifacts need: an object read,
// an object written, a prefix listed.
//
// It owns how requests are addressed and signed (Amazon S3 API reference,
// "Authenticating Requests (AWS Signature Version 4)") and how answers are
// read. It promises to be pure: it makes requests and reads answers, and sends
// nothing; and that what a key holds, whatever its characters, is what is asked
// for. It knows neither where credentials come from nor how much of an answer
// may be read.
package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Place is a bucket, and who asks for it.
type Place struct {
	// Endpoint is https://host[:port]; Amazon's of the region when empty.
	Endpoint string
	Region   string // us-east-1 when empty
	Bucket   string
	// ID and Key are the access key; without an ID requests are anonymous.
	ID, Key string
}

// ErrInvalid means that a place or key cannot be asked for.
var ErrInvalid = errors.New("invalid")

// maxKey is the longest key of an object, in bytes (Amazon S3 user guide,
// "Naming Amazon S3 objects").
const maxKey = 1024

// MaxPut is the largest object that one request may write, in bytes (Amazon S3
// user guide, "Amazon S3 multipart upload limits").
const MaxPut = 5 << 30

func (p Place) region() string {
	if p.Region == "" {
		return "us-east-1"
	}
	return p.Region
}

// address is the URL of a key. Amazon wants the bucket in the name of the host;
// others may have no names for that, and take it in the path.
func (p Place) address(key string) (*url.URL, error) {
	if err := checkBucket(p.Bucket); err != nil {
		return nil, err
	}
	if r := p.region(); len(r) > 64 || strings.Trim(r, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, fmt.Errorf("%.80q is no region: write such as eu-west-1: %w", r, ErrInvalid)
	}
	if len(key) > maxKey || strings.ContainsRune(key, 0) {
		return nil, fmt.Errorf("%.80q is no key: it has at most %d bytes: %w", key, maxKey, ErrInvalid)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "." || part == ".." { // servers and proxies on the way make others of these
			return nil, fmt.Errorf("%.80q is no key: it has %q as a part of its path: %w", key, part, ErrInvalid)
		}
	}
	endpoint := p.Endpoint
	if endpoint == "" {
		endpoint = "https://s3." + p.region() + ".amazonaws.com"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%.200q is no endpoint of an object store: write https://host or https://host:port: %w", endpoint, ErrInvalid)
	}
	path := "/" + p.Bucket + "/" + key
	if strings.HasSuffix(u.Hostname(), ".amazonaws.com") && !strings.Contains(p.Bucket, ".") { // no certificate covers a dot
		u.Host, path = p.Bucket+"."+u.Host, "/"+key
	}
	u.Path, u.RawPath = path, escape(path, true)
	return u, nil
}

// checkBucket allows what Amazon does, and what older and other stores have.
func checkBucket(b string) error {
	ok := len(b) >= 3 && len(b) <= 255 && b[0] != '.' && b[0] != '-' && !strings.Contains(b, "..") && net.ParseIP(b) == nil
	for _, c := range []byte(b) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("%.80q is no name of a bucket: %w", b, ErrInvalid)
	}
	return nil
}

// Get asks for an object.
func (p Place) Get(ctx context.Context, key string, now time.Time) (*http.Request, error) {
	return p.request(ctx, http.MethodGet, key, nil, nil, emptyHash, now)
}

// Put writes an object of a size, whose SHA-256 is hash in hexadecimal digits.
func (p Place) Put(ctx context.Context, key string, body io.Reader, size int64, hash string, now time.Time) (*http.Request, error) {
	if size > MaxPut {
		return nil, fmt.Errorf("the object has %d bytes, at most %d are written: %w", size, int64(MaxPut), ErrInvalid)
	}
	if size == 0 {
		body = http.NoBody // otherwise a length of 0 means that it is not known
	}
	req, err := p.request(ctx, http.MethodPut, key, nil, body, hash, now)
	if err == nil {
		req.ContentLength = size
	}
	return req, err
}

// List asks for the objects whose keys begin with prefix, from where an earlier
// answer ended.
func (p Place) List(ctx context.Context, prefix, token string, now time.Time) (*http.Request, error) {
	if len(prefix) > maxKey {
		return nil, fmt.Errorf("%.80q is no prefix: it has at most %d bytes: %w", prefix, maxKey, ErrInvalid)
	}
	q := url.Values{"list-type": {"2"}, "max-keys": {strconv.Itoa(PageSize)}, "encoding-type": {"url"}}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	if token != "" {
		q.Set("continuation-token", token)
	}
	return p.request(ctx, http.MethodGet, "", q, nil, emptyHash, now)
}

func (p Place) request(ctx context.Context, method, key string, q url.Values, body io.Reader, hash string, now time.Time) (*http.Request, error) {
	if q == nil && key == "" {
		return nil, fmt.Errorf("an object of %s has no key: %w", p.Bucket, ErrInvalid)
	}
	u, err := p.address(key)
	if err != nil {
		return nil, err
	}
	u.RawQuery = query(q)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	req.URL = u // as it was escaped
	if p.ID != "" {
		sign(req, p.ID, p.Key, p.region(), hash, now)
	}
	return req, nil
}

// PageSize is how many objects are asked for at a time, and MaxPage how long
// the answer may be, in bytes: keys may be escaped twice over.
const (
	PageSize = 1000
	MaxPage  = PageSize * (12*maxKey + 2048)
)

// An Object of a list.
type Object struct {
	Key  string
	Size int64
}

// A Page is one answer to a list. Next is where to go on; "" at the end.
type Page struct {
	Objects []Object
	Next    string
}

// ReadPage reads the answer to a list.
func ReadPage(r io.Reader) (Page, error) {
	var in struct {
		XMLName     xml.Name `xml:"ListBucketResult"`
		IsTruncated bool     `xml:"IsTruncated"`
		Next        string   `xml:"NextContinuationToken"`
		Encoding    string   `xml:"EncodingType"`
		Contents    []struct {
			Key  string `xml:"Key"`
			Size int64  `xml:"Size"`
		} `xml:"Contents"`
	}
	l := &io.LimitedReader{R: r, N: MaxPage + 1}
	if err := xml.NewDecoder(l).Decode(&in); err != nil {
		if l.N <= 0 {
			err = fmt.Errorf("it has more than %d bytes", MaxPage)
		}
		return Page{}, fmt.Errorf("read a list of objects: %w", err)
	}
	p := Page{Next: in.Next}
	for _, c := range in.Contents {
		if in.Encoding == "url" {
			k, err := url.QueryUnescape(c.Key) // stores write a space as a plus
			if err != nil {
				return Page{}, fmt.Errorf("read a list of objects: the key %.80q: %w", c.Key, err)
			}
			c.Key = k
		}
		if c.Key == "" || len(c.Key) > maxKey || c.Size < 0 {
			return Page{}, fmt.Errorf("read a list of objects: %.80q with %d bytes is no object", c.Key, c.Size)
		}
		p.Objects = append(p.Objects, Object{c.Key, c.Size})
	}
	switch {
	case !in.IsTruncated:
		p.Next = ""
	case p.Next == "":
		return Page{}, errors.New("read a list of objects: there are more, but it does not say how to go on")
	}
	return p, nil
}

// maxError bounds what is read of an answer that refuses.
const maxError = 64 << 10

// ReadError reads what a store says of why it refuses: a code and a message,
// both empty when it does not say.
func ReadError(r io.Reader) (code, message string) {
	var in struct {
		XMLName xml.Name `xml:"Error"`
		Code    string   `xml:"Code"`
		Message string   `xml:"Message"`
	}
	if xml.NewDecoder(io.LimitReader(r, maxError)).Decode(&in) != nil {
		return "", ""
	}
	return in.Code, in.Message
}
