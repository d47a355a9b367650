package artifacts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts/s3"
	"cairn.dev/cairn/internal/workflow"
)

// locate makes sense of the two ways in which a source names an object:
//
//	bucket (the key and the rest in fields of their own)
//	s3://bucket/key?endpoint=https://host&region=eu-1&secret=name
//
// A key in the second way is not escaped, and cannot hold a question mark.
func locate(src *task.Source) (task.Source, error) {
	out := *src
	rest, is := strings.CutPrefix(src.URL, "s3://")
	if !is {
		return out, nil
	}
	if src.Key != "" {
		return out, fmt.Errorf("%.200q: the key is there twice: %w", src.URL, ErrInvalid)
	}
	rest, query, _ := strings.Cut(rest, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return out, fmt.Errorf("%.200q: %w: %w", src.URL, ErrInvalid, err)
	}
	for k, v := range q {
		to := map[string]*string{"endpoint": &out.Endpoint, "region": &out.Region, "secret": &out.Secret}[k]
		if to == nil || len(v) != 1 {
			return out, fmt.Errorf("%.200q: write each of endpoint, region and secret at most once, and nothing else: %w", src.URL, ErrInvalid)
		}
		*to = v[0]
	}
	out.URL, out.Key, _ = strings.Cut(rest, "/")
	return out, nil
}

func (s *Store) place(src task.Source) (s3.Place, error) {
	p := s3.Place{Endpoint: src.Endpoint, Region: src.Region, Bucket: src.URL}
	if src.Secret == "" {
		return p, nil
	}
	var err error
	if p.ID, p.Key, err = s.account(src.Secret); err == nil && p.ID == "" {
		err = fmt.Errorf("the secret %s has no username, which is the ID of the access key: %w", src.Secret, ErrInvalid)
	}
	return p, err
}

func badRequest(err error) error {
	if errors.Is(err, s3.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// getObject fetches from an object store.
func (s *Store) getObject(ctx context.Context, src *task.Source) (File, error) {
	at, err := locate(src)
	if err != nil {
		return File{}, err
	}
	p, err := s.place(at)
	if err != nil {
		return File{}, err
	}
	return s.stream(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := p.Get(ctx, at.Key, s.d.Clock.Now())
		return req, badRequest(err)
	})
}

// listObjects lists the objects whose keys begin with those of an address.
func (s *Store) listObjects(ctx context.Context, address, match string, limit int) ([]workflow.Value, error) {
	if !strings.HasPrefix(address, "s3://") {
		return nil, fmt.Errorf("%.200q: write s3://BUCKET/PREFIX: %w", address, ErrInvalid)
	}
	at, err := locate(&task.Source{Kind: "s3", URL: address})
	if err != nil {
		return nil, err
	}
	p, err := s.place(at)
	if err != nil {
		return nil, err
	}
	l := newListing(match, limit)
	for token := ""; ; {
		page, err := s.objects(ctx, p, at.Key, token)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Objects {
			name, ok := below(at.Key, o.Key)
			if !ok || strings.HasSuffix(o.Key, "/") && o.Size == 0 { // some tools write folders so
				continue
			}
			src := at
			src.Key = o.Key
			if err := l.add(name, o.Size, &src); err != nil {
				return nil, err
			}
		}
		if page.Next == "" {
			return l.files(), nil
		}
		if page.Next == token {
			return nil, errors.New("the object store goes round in circles: its list continues where it began")
		}
		token = page.Next
	}
}

func (s *Store) objects(ctx context.Context, p s3.Place, prefix, token string) (s3.Page, error) {
	f, err := s.stream(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := p.List(ctx, prefix, token, s.d.Clock.Now())
		return req, badRequest(err)
	})
	if err != nil {
		return s3.Page{}, err
	}
	defer f.Close()
	return s3.ReadPage(f)
}

// below is a key as seen from the prefix that it was listed by: from a folder
// where the prefix names one, with or without the slash, and else from the
// folder that the prefix's last part lies in.
func below(prefix, key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return "", false
	}
	if prefix == "" || strings.HasSuffix(prefix, "/") {
		return rest, rest != ""
	}
	if inside, ok := strings.CutPrefix(rest, "/"); ok {
		return inside, inside != ""
	}
	return prefix[strings.LastIndexByte(prefix, '/')+1:] + rest, true
}

// explain adds to a refusal what an object store says of it.
func explain(resp *http.Response) string {
	if !slices.ContainsFunc([]string{"application/xml", "text/xml"}, func(t string) bool { return strings.HasPrefix(resp.Header.Get("Content-Type"), t) }) {
		return ""
	}
	code, message := s3.ReadError(resp.Body)
	if code == "" {
		return ""
	}
	out := fmt.Sprintf(" (%.80s: %.300s)", code, message)
	if r := resp.Header.Get("X-Amz-Bucket-Region"); r != "" {
		out += fmt.Sprintf("; its region is %.40s", r)
	}
	return out
}
