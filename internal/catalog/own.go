package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// Own is the catalog of our registry: it asks the content in this process, and
// no registry. Only live images are there, and no question is a use of one.
type Own struct {
	content *content.Store
	signed  *verifier
	facts   *facts
}

// NewOwn returns the catalog of what the store holds. Signatures are looked
// for if keys are given.
func NewOwn(store *content.Store, keys []Key) (*Own, error) {
	if store == nil {
		return nil, errors.New("catalog: no content given")
	}
	return &Own{content: store, signed: newVerifier(keys), facts: newFacts()}, nil
}

// Tags implements [Catalog].
func (o *Own) Tags(ctx context.Context, repository string) ([]Tag, error) {
	_, repo, err := split(repository)
	if err != nil {
		return nil, err
	}
	all, err := o.content.Taggings(ctx, repo)
	if err != nil {
		return nil, o.error(err)
	}
	tags := make([]Tag, len(all))
	for i, t := range all {
		tags[i] = Tag{Name: t.Name, Digest: t.Digest, Since: t.Since, Pushed: true}
	}
	return tags, nil
}

// Lookup implements [Catalog].
func (o *Own) Lookup(ctx context.Context, repository, tag string) (image.Digest, error) {
	_, repo, err := split(repository)
	if err != nil {
		return "", err
	}
	if err := image.CheckTag(tag); err != nil {
		return "", err
	}
	m, err := o.content.LiveManifest(ctx, repo, tag)
	if err != nil {
		return "", o.error(err)
	}
	return m.Digest, nil
}

// Image implements [Catalog].
func (o *Own) Image(ctx context.Context, repository string, d image.Digest) (Image, error) {
	_, repo, err := split(repository)
	if err != nil {
		return Image{}, err
	}
	since, err := o.content.Since(ctx, repo, d)
	if err != nil {
		return Image{}, o.error(err)
	}
	s := ownRepository{o, repo}
	im, ok := o.facts.get(repo, d)
	if !ok {
		if im, err = describe(ctx, s, d); err != nil {
			return Image{}, fmt.Errorf("describe %s of %s: %w", d, repository, err)
		}
		o.facts.put(repo, d, im)
	}
	im.Since = since
	im.Signer, err = o.signed.check(ctx, repo, s, d)
	if err != nil {
		return Image{}, fmt.Errorf("look for signatures on %s of %s: %w", d, repository, err)
	}
	im.Signed = im.Signer != ""
	return im, nil
}

// error gives what content does not have the name callers know.
func (o *Own) error(err error) error {
	if errors.Is(err, content.ErrRepositoryUnknown) || errors.Is(err, content.ErrManifestUnknown) || errors.Is(err, content.ErrBlobUnknown) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// ownRepository is a [source].
type ownRepository struct {
	*Own
	repo string
}

func (r ownRepository) manifest(ctx context.Context, reference string) (image.Digest, *image.Manifest, error) {
	m, err := r.content.LiveManifest(ctx, r.repo, reference)
	if err != nil {
		return "", nil, r.error(err)
	}
	parsed, err := image.ParseManifest(m.MediaType, m.Body)
	return m.Digest, parsed, err
}

func (r ownRepository) blob(ctx context.Context, d image.Descriptor) ([]byte, error) {
	in, err := r.content.OpenBlob(ctx, r.repo, d.Digest)
	if err != nil {
		return nil, r.error(err)
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxBlob+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	return b, checkBlob(b, d.Digest)
}

func (r ownRepository) referrers(ctx context.Context, d image.Digest) ([]image.Descriptor, error) {
	all, _, err := r.content.Referrers(ctx, r.repo, d, "", "", maxReferrers)
	return all, err
}

// checkBlob says whether these are the bytes of a digest.
func checkBlob(b []byte, d image.Digest) error {
	if len(b) > maxBlob {
		return fmt.Errorf("%s has more than %d bytes", d, maxBlob)
	}
	if digest.Digest(d).Algorithm().FromBytes(b) != d {
		return fmt.Errorf("what came as %s does not have that digest", d)
	}
	return nil
}

// facts remembers descriptions. They never change, so that it only has to stay
// small: when it is full it begins anew.
type facts struct {
	mu sync.Mutex
	m  map[factKey]Image
}

type factKey struct {
	repository string
	digest     image.Digest
}

// maxFacts is some 20 MB of them.
const maxFacts = 50_000

func newFacts() *facts { return &facts{m: map[factKey]Image{}} }

func (f *facts) get(repo string, d image.Digest) (Image, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	im, ok := f.m[factKey{repo, d}]
	return im, ok
}

func (f *facts) put(repo string, d image.Digest, im Image) {
	im.Since, im.Signed, im.Signer = time.Time{}, false, ""
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.m) >= maxFacts {
		clear(f.m)
	}
	f.m[factKey{repo, d}] = im
}
