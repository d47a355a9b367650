package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
)

const (
	repository = "bench/app"
	tagged     = "bench/tags" // with a hundred tags
	mediaType  = "application/vnd.oci.image.manifest.v1+json"
)

// cargo is the image that every registry holds: an ordinary one, with a
// configuration and six layers of which the last has 1 MiB.
type cargo struct {
	blobs       map[string][]byte
	layer       []byte
	layerDigest string
	manifest    []byte
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

func makeCargo() *cargo {
	c := &cargo{blobs: map[string][]byte{}}
	random := rand.NewChaCha8([32]byte{1})
	add := func(mediaType string, b []byte) descriptor {
		d := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
		c.blobs[d] = b
		return descriptor{mediaType, d, len(b)}
	}
	var layers []descriptor
	for i := range 6 {
		b := make([]byte, 4<<10)
		if i == 5 {
			b = make([]byte, 1<<20)
		}
		_, _ = random.Read(b)
		layers = append(layers, add("application/vnd.oci.image.layer.v1.tar+gzip", b))
		c.layer, c.layerDigest = b, layers[i].Digest
	}
	config := add("application/vnd.oci.image.config.v1+json", []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`))
	m, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{2, mediaType, config, layers})
	if err != nil {
		panic(err) // our own types always marshal
	}
	c.manifest = m
	return c
}

// push fills the registry at addr.
func (c *cargo) push(ctx context.Context, addr string) error {
	for _, repo := range []string{repository, tagged} {
		for d, b := range c.blobs {
			if err := pushBlob(ctx, addr, repo, d, bytes.NewReader(b), int64(len(b))); err != nil {
				return err
			}
		}
	}
	if err := c.tag(ctx, addr, repository, "latest"); err != nil {
		return err
	}
	for i := range 100 {
		if err := c.tag(ctx, addr, tagged, fmt.Sprintf("v1.0.%03d", i)); err != nil {
			return err
		}
	}
	return nil
}

func (c *cargo) tag(ctx context.Context, addr, repo, tag string) error {
	_, err := send(ctx, "PUT", "http://"+addr+"/v2/"+repo+"/manifests/"+tag, mediaType, bytes.NewReader(c.manifest), int64(len(c.manifest)), 201)
	return err
}

// pushBlob uploads by POST and PUT.
func pushBlob(ctx context.Context, addr, repo, digest string, r io.Reader, size int64) error {
	location, err := send(ctx, "POST", "http://"+addr+"/v2/"+repo+"/blobs/uploads/", "", nil, 0, 202)
	if err != nil {
		return err
	}
	base := &url.URL{Scheme: "http", Host: addr}
	u, err := base.Parse(location)
	if err != nil {
		return fmt.Errorf("location %q of an upload: %w", location, err)
	}
	q := u.Query()
	q.Set("digest", digest)
	u.RawQuery = q.Encode()
	_, err = send(ctx, "PUT", u.String(), "application/octet-stream", r, size, 201)
	return err
}

// send makes one request and returns the Location of the answer.
func send(ctx context.Context, method, url, mediaType string, body io.Reader, size int64, want int) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return "", err
	}
	req.ContentLength = size
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode != want {
		return "", fmt.Errorf("%s %s: status %d, want %d: %s", method, url, resp.StatusCode, want, b)
	}
	return resp.Header.Get("Location"), nil
}
