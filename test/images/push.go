package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Push pushes to the registry at the address (host:port, plain HTTP, open to
// all) under all names of the image. What the registry has is not sent again.
func (i Image) Push(ctx context.Context, address string) error {
	for _, r := range i.Refs {
		at := strings.LastIndex(r, ":")
		if at < 0 {
			return fmt.Errorf("push %s: the name has no tag", r)
		}
		if err := i.push(ctx, "http://"+address+"/v2/"+r[:at], r[at+1:]); err != nil {
			return fmt.Errorf("push %s to %s: %w", r, address, err)
		}
	}
	return nil
}

func (i Image) push(ctx context.Context, base, tag string) error {
	layers, err := i.Image.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := pushBlob(ctx, base, l.Digest, l.Compressed); err != nil {
			return err
		}
	}
	config := func() (io.ReadCloser, error) {
		b, err := i.Image.RawConfigFile()
		return io.NopCloser(bytes.NewReader(b)), err
	}
	if err := pushBlob(ctx, base, i.Image.ConfigName, config); err != nil {
		return err
	}
	if !i.Index {
		return pushManifest(ctx, base, tag, i.Image)
	}
	d, err := i.Image.Digest()
	if err != nil {
		return err
	}
	if err := pushManifest(ctx, base, d.String(), i.Image); err != nil {
		return err
	}
	return pushManifest(ctx, base, tag, i.index())
}

func pushBlob(ctx context.Context, base string, digest func() (v1.Hash, error), open func() (io.ReadCloser, error)) error {
	d, err := digest()
	if err != nil {
		return err
	}
	if _, err := do(ctx, http.MethodHead, base+"/blobs/"+d.String(), "", nil, http.StatusOK); err == nil {
		return nil
	}
	location, err := do(ctx, http.MethodPost, base+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	q := location.Query()
	q.Set("digest", d.String())
	location.RawQuery = q.Encode()
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, err = do(ctx, http.MethodPut, location.String(), "application/octet-stream", b, http.StatusCreated)
	return err
}

// manifest is an image or an index.
type manifest interface {
	RawManifest() ([]byte, error)
}

func pushManifest(ctx context.Context, base, ref string, m manifest) error {
	b, err := m.RawManifest()
	if err != nil {
		return err
	}
	kind := "application/vnd.oci.image.manifest.v1+json"
	if _, ok := m.(v1.ImageIndex); ok {
		kind = "application/vnd.oci.image.index.v1+json"
	}
	_, err = do(ctx, http.MethodPut, base+"/manifests/"+ref, kind, b, http.StatusCreated)
	return err
}

// do sends a request, and returns where the answer points.
func do(ctx context.Context, method, url, mediaType string, body []byte, want int) (*url.URL, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %.200s", method, url, resp.Status, answer)
	}
	if resp.Header.Get("Location") == "" {
		return nil, nil
	}
	return resp.Location()
}
