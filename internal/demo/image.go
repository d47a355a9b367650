package demo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
)

// built is a small image, as any builder would make it: a layer with one
// file, a config, a manifest.
type built struct {
	repository, tag string
	layer, config   []byte
	manifest        []byte
	digest          image.Digest
}

// file is what is in an image of the story.
type file struct {
	name string // from the root
	mode int64
	body []byte
}

// build makes an image of one file, which it starts with. The same input makes
// the same digests.
func build(repository, tag, architecture string, f file) (*built, error) {
	var tarred bytes.Buffer
	tw := tar.NewWriter(&tarred)
	err := tw.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = tw.Write(f.body)
	}
	if err == nil {
		err = tw.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("build %s:%s: %w", repository, tag, err)
	}
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	if _, err = zw.Write(tarred.Bytes()); err == nil {
		err = zw.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("build %s:%s: %w", repository, tag, err)
	}
	b := &built{repository: repository, tag: tag, layer: zipped.Bytes()}
	b.config, err = json.Marshal(map[string]any{
		"os": "linux", "architecture": architecture,
		"config": map[string]any{"Cmd": []string{"/" + f.name}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []image.Digest{digest.FromBytes(tarred.Bytes())}},
	})
	if err != nil {
		return nil, fmt.Errorf("build %s:%s: %w", repository, tag, err)
	}
	b.manifest, err = json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     image.MediaTypeManifest,
		"config":        describe("application/vnd.oci.image.config.v1+json", b.config),
		"layers":        []image.Descriptor{describe("application/vnd.oci.image.layer.v1.tar+gzip", b.layer)},
	})
	if err != nil {
		return nil, fmt.Errorf("build %s:%s: %w", repository, tag, err)
	}
	b.digest = digest.FromBytes(b.manifest)
	return b, nil
}

func describe(mediaType string, b []byte) image.Descriptor {
	return image.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// registry speaks the little of the registry protocol that the story needs.
type registry struct {
	base string // http://host:port
	http *http.Client
}

// push uploads the blobs, then the manifest under its tag.
func (r registry) push(ctx context.Context, b *built) error {
	for _, blob := range [][]byte{b.layer, b.config} {
		resp, err := r.do(ctx, http.MethodPost, r.base+"/v2/"+b.repository+"/blobs/uploads/", "", nil, http.StatusAccepted)
		if err != nil {
			return fmt.Errorf("push %s:%s: %w", b.repository, b.tag, err)
		}
		u, err := resp.Location()
		if err != nil {
			return fmt.Errorf("push %s:%s: %w", b.repository, b.tag, err)
		}
		q := u.Query()
		q.Set("digest", digest.FromBytes(blob).String())
		u.RawQuery = q.Encode()
		if _, err := r.do(ctx, http.MethodPut, u.String(), "application/octet-stream", blob, http.StatusCreated); err != nil {
			return fmt.Errorf("push %s:%s: %w", b.repository, b.tag, err)
		}
	}
	if _, err := r.do(ctx, http.MethodPut, r.manifest(b.repository, b.tag), image.MediaTypeManifest, b.manifest, http.StatusCreated); err != nil {
		return fmt.Errorf("push %s:%s: %w", b.repository, b.tag, err)
	}
	return nil
}

// pull asks for the manifest, as every pull begins.
func (r registry) pull(ctx context.Context, repository, ref string) error {
	_, err := r.do(ctx, http.MethodHead, r.manifest(repository, ref), "", nil, http.StatusOK)
	return err
}

func (r registry) manifest(repository, ref string) string {
	return r.base + "/v2/" + repository + "/manifests/" + url.PathEscape(ref)
}

func (r registry) do(ctx context.Context, method, u, contentType string, body []byte, want int) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", image.MediaTypeManifest)
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, u, err)
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: answered %s: %.300s", method, u, resp.Status, answer)
	}
	return resp, nil
}
