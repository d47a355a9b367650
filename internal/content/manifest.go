package content

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// matches reports whether body has the digest d.
func matches(body []byte, d image.Digest) bool {
	switch d.Algorithm() {
	case "sha256":
		h := sha256.Sum256(body)
		return hex.EncodeToString(h[:]) == d.Encoded()
	case "sha512":
		h := sha512.Sum512(body)
		return hex.EncodeToString(h[:]) == d.Encoded()
	}
	return false
}

// isDigest tells references apart: a tag has no colon.
func isDigest(ref string) bool {
	for i := range len(ref) {
		if ref[i] == ':' {
			return true
		}
	}
	return false
}

const manifestColumns = `SELECT m.digest, m.media_type, m.subject, m.pushed, m.state, b.body `

// Manifest returns what a tag or digest names. An image that retention expired
// comes back by this: whoever asks for it by digest, or by a tag it had and
// nobody has now, gets it. ErrManifestUnknown, ErrRepositoryUnknown.
func (s *Store) Manifest(ctx context.Context, repo, ref string) (*Manifest, error) {
	m, state, err := s.manifest(ctx, repo, ref)
	if err != nil || state == Live {
		return m, err
	}
	why := "pulled by digest"
	if !isDigest(ref) {
		why = "pulled by tag " + ref
	}
	if err := s.Revive(ctx, repo, m.Digest, why); err != nil {
		if errors.Is(err, ErrManifestUnknown) { // deleted in the meantime
			return nil, err
		}
		// The bytes are there and the caller notes the use: that reading goes
		// on while nothing can be written is worth more than the order.
		s.log.Error("cannot revive an expired image that was pulled", "repository", repo, "digest", m.Digest, "error", err)
	}
	return m, nil
}

// LiveManifest is [Store.Manifest] for those whose pulls are not a use, such as
// scanners: nothing comes back for them, a hidden image is ErrManifestUnknown.
func (s *Store) LiveManifest(ctx context.Context, repo, ref string) (*Manifest, error) {
	m, state, err := s.manifest(ctx, repo, ref)
	if err == nil && state != Live {
		return nil, fmt.Errorf("%w: %s of %s is %s", ErrManifestUnknown, ref, repo, state)
	}
	return m, err
}

// manifest finds a live manifest, in the cache or the database, or an expired
// one that ref may revive.
func (s *Store) manifest(ctx context.Context, repo, ref string) (*Manifest, State, error) {
	if m, ok := s.manifests.get(repo, ref); ok {
		return m, Live, nil
	}
	gen := s.changes.of(repo).Load()
	m, state, err := s.readManifest(ctx, repo, ref)
	if err == nil && state == Live {
		s.manifests.put(repo, ref, gen, m, int64(len(m.Body)+len(m.MediaType)+200))
	}
	return m, state, err
}

// readManifest finds a live manifest, or an expired one that ref may revive.
func (s *Store) readManifest(ctx context.Context, repo, ref string) (m *Manifest, state State, err error) {
	byDigest := isDigest(ref)
	var arg any = ref
	query := manifestColumns + `FROM tags t JOIN manifests m ON m.id = t.manifest_id JOIN manifest_bodies b ON b.manifest_id = m.id
		WHERE t.repo_id = (SELECT id FROM repositories WHERE name = ?) AND t.name = ?`
	if byDigest {
		if err := checkDigest(image.Digest(ref)); err != nil {
			return nil, 0, err
		}
		arg = key(image.Digest(ref))
		query = manifestColumns + `FROM manifests m JOIN manifest_bodies b ON b.manifest_id = m.id
		WHERE m.repo_id = (SELECT id FROM repositories WHERE name = ?) AND m.digest = ?`
	}
	var digest, subject, body []byte
	var pushed int64
	var media int
	found := false
	m = &Manifest{Repository: repo}
	read := func(q db.Query) (err error) {
		found, err = q.Row(ctx, query, []any{repo, arg}, &digest, &media, &subject, &pushed, &state, &body)
		return err
	}
	if err := s.db.ReadOne(ctx, read); err != nil {
		return nil, 0, fmt.Errorf("read manifest %s of %s: %w", ref, repo, mapError(err))
	}
	if !found && !byDigest {
		// The image that had the tag last, if a pull may bring it back.
		query = manifestColumns + `FROM hidden_tags t JOIN manifests m ON m.id = t.manifest_id JOIN manifest_bodies b ON b.manifest_id = m.id
			WHERE t.repo_id = (SELECT id FROM repositories WHERE name = ?) AND t.name = ? AND t.pull = 1
			ORDER BY m.hidden_at DESC, t.pushed DESC, m.id DESC LIMIT 1`
		if err := s.db.ReadOne(ctx, read); err != nil {
			return nil, 0, fmt.Errorf("read manifest %s of %s: %w", ref, repo, mapError(err))
		}
	}
	if !found || state == Deleted {
		err := s.db.ReadOne(ctx, func(q db.Query) error {
			_, err := repoID(ctx, q, repo)
			return err
		})
		if err != nil {
			return nil, 0, mapError(err)
		}
		return nil, 0, fmt.Errorf("%w: %s of %s", ErrManifestUnknown, ref, repo)
	}
	m.Digest, m.MediaType, m.Subject, m.Pushed, m.Body = digestOf(digest), mediaType(media), digestOf(subject), timeOf(pushed), body
	if !matches(body, m.Digest) {
		s.log.Error("manifest is corrupt: push it again", "repository", repo, "digest", m.Digest)
		return nil, 0, fmt.Errorf("read manifest %s of %s: %w; push it again", ref, repo, ErrCorrupt)
	}
	return m, state, nil
}

// PutManifest stores a manifest and sets its tags, in one transaction. Its
// blobs must be in the repository (*MissingBlobsError); the manifests an index
// lists and the subject need not. A hidden image comes back by this, without
// the tags it had; expired images it lists come back with it.
func (s *Store) PutManifest(ctx context.Context, p Push) error {
	if err := image.CheckRepository(p.Repository); err != nil {
		return err
	}
	if err := checkDigest(p.Digest); err != nil {
		return err
	}
	for _, t := range p.Tags {
		if err := image.CheckTag(t); err != nil {
			return err
		}
	}
	if p.Manifest == nil || !matches(p.Body, p.Digest) {
		return fmt.Errorf("push manifest: %w: %s", ErrDigestMismatch, p.Digest)
	}
	defer s.traffic.enter()()
	var rev revival
	put := func(tx *db.Tx) error {
		rev = revival{s: s, tx: tx, repo: p.Repository, actor: p.Actor, why: "pushed", at: s.now()}
		return s.putManifest(ctx, tx, p, &rev)
	}
	err := s.write(ctx, p.Repository, put)
	for errors.Is(err, errUnsettled) {
		if err = s.settle(ctx); err == nil {
			err = s.write(ctx, p.Repository, put)
		}
	}
	if err != nil {
		return fmt.Errorf("push manifest %s to %s: %w", p.Digest, p.Repository, err)
	}
	rev.announce(ctx)
	for _, t := range p.Tags {
		s.tagged(p.Repository, t, p.Digest)
	}
	return nil
}

func (s *Store) putManifest(ctx context.Context, tx *db.Tx, p Push, rev *revival) error {
	rid, err := makeRepo(tx, p.Repository)
	if err != nil {
		return err
	}
	rev.rid = rid
	size := int64(len(p.Body))
	var blobs []int64
	var missing []image.Digest
	for _, d := range p.Manifest.Blobs() {
		id, n, err := linkedBlob(ctx, tx, rid, d.Digest)
		if errors.Is(err, ErrBlobUnknown) {
			missing = append(missing, d.Digest)
			continue
		} else if err != nil {
			return err
		}
		blobs, size = append(blobs, id), size+n
	}
	if missing != nil {
		return &MissingBlobsError{missing}
	}
	// Layers that may come from elsewhere are kept if somebody pushed them.
	for _, d := range p.Manifest.Layers {
		if len(d.URLs) == 0 {
			continue
		}
		id, n, err := linkedBlob(ctx, tx, rid, d.Digest)
		if errors.Is(err, ErrBlobUnknown) {
			continue
		} else if err != nil {
			return err
		}
		blobs, size = append(blobs, id), size+n
	}

	if len(blobs) > 0 && slices.Max(blobs) > s.settled.upto.Load() {
		return errUnsettled
	}

	media, err := mediaTypeID(p.MediaType)
	if err != nil {
		return err
	}
	now := rev.at
	var id int64
	var state State
	known, err := tx.Row(ctx, "SELECT id, state FROM manifests WHERE repo_id = ? AND digest = ?", []any{rid, key(p.Digest)}, &id, &state)
	switch {
	case err != nil:
		return err
	case !known:
		if id, err = insertManifest(tx, rid, p, media, size, now); err != nil {
			return err
		}
	default:
		if state != Live {
			// It comes back with the tags of this push only.
			if _, err := tx.Exec("DELETE FROM hidden_tags WHERE manifest_id = ?", id); err != nil {
				return err
			}
			if err := rev.revive(ctx, id, p.Digest, state); err != nil {
				return err
			}
		}
		_, err := tx.Exec("UPDATE manifests SET media_type = ?, size = ?, pushed = ?, version = version + 1 WHERE id = ?", media, size, now, id)
		if err != nil {
			return err
		}
		// The stored body may be damaged: this one was compared.
		var body []byte
		if _, err := tx.Row(ctx, "SELECT body FROM manifest_bodies WHERE manifest_id = ?", []any{id}, &body); err != nil {
			return err
		}
		if !bytes.Equal(body, p.Body) {
			if _, err := tx.Exec("UPDATE manifest_bodies SET body = ? WHERE manifest_id = ?", p.Body, id); err != nil {
				return err
			}
		}
	}
	for _, b := range blobs {
		_, err := tx.Exec("INSERT INTO manifest_blobs (manifest_id, blob_id, repo_id) VALUES (?, ?, ?) ON CONFLICT (manifest_id, blob_id) DO NOTHING", id, b, rid)
		if err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE links SET due = NULL WHERE repo_id = ? AND blob_id = ? AND due IS NOT NULL", rid, b); err != nil {
			return err
		}
	}
	for _, t := range p.Tags {
		if err := setTag(ctx, tx, rid, id, t, now); err != nil {
			return err
		}
	}
	// What the new image needs must not go by a decision taken without it.
	for _, c := range p.Manifest.Children {
		_, err := tx.Exec("UPDATE manifests SET version = version + 1 WHERE repo_id = ? AND digest = ? AND state = 0", rid, key(c.Digest))
		if err != nil {
			return err
		}
	}
	if known && state == Live {
		return rev.children(ctx, childKeys(p.Manifest))
	}
	return rev.follow(ctx, p.Digest, childKeys(p.Manifest))
}

func insertManifest(tx *db.Tx, rid int64, p Push, media int, size, now int64) (int64, error) {
	var subject, artifact any
	if p.Manifest.Subject != nil {
		subject = orNull(key(p.Manifest.Subject.Digest))
	}
	if p.Manifest.ArtifactType != usualArtifact(p.MediaType) {
		artifact = p.Manifest.ArtifactType
	}
	id, err := tx.Insert("INSERT INTO manifest_bodies (body) VALUES (?)", p.Body)
	if err != nil {
		return 0, err
	}
	// The version begins anywhere, so that one of an image that was swept and
	// pushed again is never taken for the old one's; below 2^53, which is as
	// far as JSON's readers count.
	_, err = tx.Exec(`INSERT INTO manifests (id, repo_id, digest, media_type, artifact_type, size, config, subject, children, pushed, version)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, id, rid, key(p.Digest), media, artifact, size,
		orNull(key(p.Manifest.CreditConfig())), subject, orNull(childKeys(p.Manifest)), now, rand.Int64N(1<<50))
	return id, err
}

// childKeys are the digests of an index's manifests as they are stored.
func childKeys(m *image.Manifest) []byte {
	var ks []byte
	for _, c := range m.Children {
		ks = append(ks, key(c.Digest)...)
	}
	return ks
}

// linkedBlob finds a good blob of the repository, or returns ErrBlobUnknown.
func linkedBlob(ctx context.Context, tx *db.Tx, rid int64, d image.Digest) (id, size int64, err error) {
	ok, err := tx.Row(ctx, `SELECT b.id, b.size FROM blobs b JOIN links l ON l.blob_id = b.id
		WHERE b.digest = ? AND b.corrupt = 0 AND l.repo_id = ? AND l.hidden = 0`, []any{key(d), rid}, &id, &size)
	if err == nil && !ok {
		err = ErrBlobUnknown
	}
	return id, size, err
}

// setTag points a tag at a manifest. The image it is taken from begins its
// time anew: who moves a tag may want to move it back.
func setTag(ctx context.Context, tx *db.Tx, rid, id int64, tag string, now int64) error {
	var old int64
	ok, err := tx.Row(ctx, "SELECT manifest_id FROM tags WHERE repo_id = ? AND name = ?", []any{rid, tag}, &old)
	if err != nil {
		return err
	}
	if ok && old != id {
		if err := touchManifest(tx, old, now); err != nil {
			return err
		}
	}
	_, err = tx.Exec(`INSERT INTO tags (repo_id, name, manifest_id, pushed, since) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (repo_id, name) DO UPDATE SET manifest_id = excluded.manifest_id, pushed = excluded.pushed,
			since = CASE WHEN manifest_id <> excluded.manifest_id THEN excluded.since WHEN since = 0 THEN pushed ELSE since END`, rid, tag, id, now, now)
	return err
}

// touchManifest notes a move of a tag to or from it.
func touchManifest(tx *db.Tx, id, now int64) error {
	_, err := tx.Exec("UPDATE manifests SET pushed = ?, version = version + 1 WHERE id = ?", now, id)
	return err
}

// SetTag points a tag at an image of the repository, which comes back if
// retention had expired it. ErrManifestUnknown if it is not there or deleted.
func (s *Store) SetTag(ctx context.Context, repo string, d image.Digest, tag, actor string) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	if err := image.CheckTag(tag); err != nil {
		return err
	}
	var rev revival
	err := s.write(ctx, repo, func(tx *db.Tx) error {
		rev = revival{s: s, tx: tx, repo: repo, actor: actor, why: "tagged " + tag, at: s.now()}
		id, err := rev.live(ctx, d)
		if err != nil {
			return err
		}
		if err := setTag(ctx, tx, rev.rid, id, tag, rev.at); err != nil {
			return err
		}
		return touchManifest(tx, id, rev.at)
	})
	if err != nil {
		return fmt.Errorf("tag %s as %s in %s: %w", d, tag, repo, err)
	}
	rev.announce(ctx)
	s.tagged(repo, tag, d)
	return nil
}

// tagged tells the hook, after the commit.
func (s *Store) tagged(repo, tag string, d image.Digest) {
	if s.cfg.OnTag != nil {
		s.cfg.OnTag(repo, tag, d)
	}
}
