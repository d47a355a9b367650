// Package images makes the images that tests run on real nodes, and pushes
// them to a registry.
//
// It owns the list of their names, which are those that published examples of
// workflows use most, and what is in them: Debian's busybox, which stands in
// for alpine and all small images, Debian's Python, and a few scripts. They do
// what the examples ask of the images they are named after, and nothing else:
// they are not those images. It promises that the same packages make the same
// digests. It pulls nothing from anywhere.
package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"cairn.dev/cairn/test/parts"
)

// Image is one image and the names it is pushed under.
type Image struct {
	Refs  []string // repository:tag, without a registry
	Image v1.Image // for the platform of this computer
	Index bool     // pushed as an index that holds it, as most published images are
}

// Digest is that of what is pushed: of the index where there is one.
func (i Image) Digest() (string, error) {
	var h v1.Hash
	var err error
	if i.Index {
		h, err = i.index().Digest()
	} else {
		h, err = i.Image.Digest()
	}
	return h.String(), err
}

func (i Image) index() v1.ImageIndex {
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: i.Image,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
}

// Push makes the images with these names (repository:tag) and pushes them to
// the registry at the address; all that there are when none is named. It
// returns the digests by name. What fails ends the test.
func Push(t testing.TB, address string, refs ...string) map[string]string {
	t.Helper()
	all, err := Build(t.Context(), os.Stderr, refs...)
	if err != nil {
		parts.Missing(t, err.Error())
	}
	digests := map[string]string{}
	for _, i := range all {
		if err := i.Push(t.Context(), address); err != nil {
			t.Fatal(err)
		}
		for _, r := range i.Refs {
			if digests[r], err = i.Digest(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return digests
}

// Build makes the images with these names; all when none is given.
func Build(ctx context.Context, progress io.Writer, refs ...string) ([]Image, error) {
	var found []Image
	left := map[string]bool{}
	for _, r := range refs {
		left[r] = true
	}
	for _, e := range catalog() {
		var names []string
		for _, r := range e.refs {
			if left[r] || len(refs) == 0 {
				names = append(names, r)
			}
			delete(left, r)
		}
		if len(names) == 0 {
			continue
		}
		img, err := e.build(ctx, progress)
		if err != nil {
			return nil, fmt.Errorf("make the image %s: %w", e.refs[0], err)
		}
		found = append(found, Image{names, img, e.index})
	}
	for r := range left {
		known := ""
		for _, e := range catalog() {
			known += " " + strings.Join(e.refs, " ")
		}
		return nil, fmt.Errorf("no image is called %q; there are:%s", r, known)
	}
	return found, nil
}

// Variant is busybox with a file /variant that holds the text: an image of its
// own for each text, all on one common layer.
func Variant(t testing.TB, text string, refs ...string) Image {
	t.Helper()
	base, err := Build(t.Context(), os.Stderr, "library/busybox:latest")
	if err != nil {
		parts.Missing(t, err.Error())
	}
	img, err := base[0].Vary(text, refs...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Vary is the image with a file /variant that holds the text, under other names.
func (i Image) Vary(text string, refs ...string) (Image, error) {
	img, err := add(i.Image, files{"variant": {0o644, []byte(text)}})
	return Image{Refs: refs, Image: img}, err
}

// add puts a layer on an image.
func add(base v1.Image, fs files) (v1.Image, error) {
	b, err := fs.tar()
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, layer)
}

// configure sets what a container does when nobody says otherwise.
func configure(img v1.Image, entrypoint, cmd []string) (v1.Image, error) {
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	f = f.DeepCopy()
	f.OS, f.Architecture = "linux", runtime.GOARCH
	f.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	f.Config.Entrypoint, f.Config.Cmd = entrypoint, cmd
	return mutate.ConfigFile(img, f)
}

// scratch is an image without layers.
func scratch() v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
}

// Program is an image that holds one static program and nothing else, which a
// container of it runs. It has no users: pods say by number who runs it.
func Program(t testing.TB, file string, refs ...string) Image {
	t.Helper()
	img, err := OfProgram(file, refs...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// OfProgram is [Program] without a test.
func OfProgram(file string, refs ...string) (Image, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Image{}, err
	}
	name := filepath.Base(file)
	img, err := add(scratch(), files{name: {0o755, b}, "tmp": dir(fs.ModeSticky | 0o777)})
	if err == nil {
		img, err = configure(img, []string{"/" + name}, nil)
	}
	return Image{Refs: refs, Image: img}, err
}
