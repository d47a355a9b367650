package pool

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"cairn.dev/cairn/internal/image"
)

// archive writes an image as "docker save" does: a list, the config, and the
// layers as they are stored. All engines load such.
func (d *description) archive(ctx context.Context, ref string, to io.Writer) error {
	t := tar.NewWriter(to)
	put := func(name string, size int64, write func(io.Writer) error) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
			return err
		}
		return write(t)
	}
	config := d.config.Digest.Encoded() + ".json"
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: config, RepoTags: []string{ref}}
	written := map[image.Digest]bool{}
	for _, l := range d.layers {
		name := l.Digest.Encoded() + ".tar"
		entry.Layers = append(entry.Layers, name)
		if written[l.Digest] {
			continue
		}
		written[l.Digest] = true
		if err := put(name, l.Size, func(w io.Writer) error { return verified(ctx, d.from, l, w) }); err != nil {
			return fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}
	if err := put(config, d.config.Size, func(w io.Writer) error { return verified(ctx, d.from, d.config, w) }); err != nil {
		return fmt.Errorf("config %s: %w", d.config.Digest, err)
	}
	list, err := json.Marshal([]any{entry})
	if err != nil {
		return err
	}
	if err := put("manifest.json", int64(len(list)), func(w io.Writer) error { _, err := io.Copy(w, bytes.NewReader(list)); return err }); err != nil {
		return err
	}
	return t.Close()
}
