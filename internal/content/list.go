package content

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// page is one answer of Tags.
type page struct {
	names []string
	more  bool
}

// limit is the LIMIT of a statement that reads one more than n to see whether
// there is more; n < 0 is all.
func limit(n int) int64 {
	if n < 0 {
		return 1 << 62
	}
	return int64(n) + 1
}

// Tags lists up to n tags that come after a name, in ASCII order; n < 0 is
// all. more says that there are others. ErrRepositoryUnknown. The names are
// shared between callers: do not change them.
func (s *Store) Tags(ctx context.Context, repo, after string, n int) (names []string, more bool, err error) {
	ref := strconv.Itoa(n) + "/" + after
	if p, ok := s.tagPages.get(repo, ref); ok {
		return p.names, p.more, nil
	}
	gen := s.changes.of(repo).Load()
	err = s.db.Read(ctx, func(q db.Query) error {
		rid, err := repoID(ctx, q, repo)
		if err != nil {
			return err
		}
		names, err = stringsOf(q.Query(ctx, "SELECT name FROM tags WHERE repo_id = ? AND name > ? ORDER BY name LIMIT ?", rid, after, limit(n)))
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("list tags: %w", mapError(err))
	}
	if n >= 0 && len(names) > n {
		names, more = names[:n:n], true
	}
	var cost int64
	for _, name := range names {
		cost += int64(len(name)) + 16
	}
	s.tagPages.put(repo, ref, gen, page{names, more}, cost)
	return names, more, nil
}

// Taggings lists all tags of a repository in ASCII order, with what they name.
// ErrRepositoryUnknown.
func (s *Store) Taggings(ctx context.Context, repo string) ([]Tagging, error) {
	var all []Tagging
	for after := ""; ; {
		n := len(all)
		err := s.db.Read(ctx, func(q db.Query) error {
			rid, err := repoID(ctx, q, repo)
			if err != nil {
				return err
			}
			rows, err := q.Query(ctx, `SELECT t.name, m.digest, CASE WHEN t.since = 0 THEN t.pushed ELSE t.since END
				FROM tags t JOIN manifests m ON m.id = t.manifest_id WHERE t.repo_id = ? AND t.name > ? ORDER BY t.name LIMIT ?`, rid, after, s.scanImages)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var t Tagging
				var d []byte
				var since int64
				if err := rows.Scan(&t.Name, &d, &since); err != nil {
					return err
				}
				t.Digest, t.Since = digestOf(d), timeOf(since)
				all = append(all, t)
			}
			return rows.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("list tags of %s: %w", repo, mapError(err))
		}
		if len(all)-n < s.scanImages { // one read view is short
			return all, nil
		}
		after = all[len(all)-1].Name
	}
}

// Since is when the oldest of a live image's tags began to name it, or when it
// was pushed if it has none. ErrManifestUnknown, ErrRepositoryUnknown.
func (s *Store) Since(ctx context.Context, repo string, d image.Digest) (time.Time, error) {
	if err := checkDigest(d); err != nil {
		return time.Time{}, err
	}
	var since int64
	err := s.db.Read(ctx, func(q db.Query) error {
		rid, err := repoID(ctx, q, repo)
		if err != nil {
			return err
		}
		ok, err := q.Row(ctx, `SELECT COALESCE((SELECT MIN(CASE WHEN t.since = 0 THEN t.pushed ELSE t.since END) FROM tags t WHERE t.manifest_id = m.id), m.pushed)
			FROM manifests m WHERE m.repo_id = ? AND m.digest = ? AND m.state = 0`, []any{rid, key(d)}, &since)
		if err == nil && !ok {
			err = fmt.Errorf("%w: %s of %s", ErrManifestUnknown, d, repo)
		}
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("look up since when %s is in %s: %w", d, repo, mapError(err))
	}
	return timeOf(since), nil
}

// Repositories lists up to n repositories that hold a live image and come
// after a name, in ASCII order; n < 0 is all.
func (s *Store) Repositories(ctx context.Context, after string, n int) (names []string, more bool, err error) {
	for {
		want := n
		if n < 0 || n > repositoriesPage {
			want = repositoriesPage // one read view is short
		}
		if n >= 0 && len(names)+want > n {
			want = n - len(names)
		}
		var got []string
		err = s.db.ReadOne(ctx, func(q db.Query) (err error) {
			got, err = stringsOf(q.Query(ctx, `SELECT r.name FROM repositories r WHERE r.name > ?
				AND EXISTS (SELECT 1 FROM manifests m WHERE m.repo_id = r.id AND m.state = 0) ORDER BY r.name LIMIT ?`, after, limit(want)))
			return err
		})
		if err != nil {
			return nil, false, fmt.Errorf("list repositories: %w", mapError(err))
		}
		more = len(got) > want
		got = got[:min(len(got), want)]
		names = append(names, got...)
		if !more || n >= 0 && len(names) >= n {
			return names, more, nil
		}
		after = got[len(got)-1]
	}
}

const repositoriesPage = 5000

// Referrers lists up to n live manifests of the repository whose subject is d,
// by their own field or because an index pushed under the fallback tag of d
// lists them, in order of digest after the given one; n < 0 is all. Filtered by
// artifact type unless that is "". It never fails because d is not there.
func (s *Store) Referrers(ctx context.Context, repo string, d image.Digest, artifactType string, after image.Digest, n int) (ds []image.Descriptor, more bool, err error) {
	if err := checkDigest(d); err != nil {
		return nil, false, err
	}
	if n == 0 {
		return nil, false, nil
	}
	err = s.db.Read(ctx, func(q db.Query) error {
		rid, err := repoID(ctx, q, repo)
		if errors.Is(err, ErrRepositoryUnknown) {
			return nil
		} else if err != nil {
			return err
		}
		// Filtering by type in SQL and ordering by digest in both lists makes
		// the merge below exact.
		typed, args := "", []any{rid, key(d), keyAfter(after)}
		if artifactType != "" {
			typed, args = " AND "+artifactOf+" = ?", append(args, artifactType)
		}
		ds, err = descriptors(ctx, q, `SELECT m.digest, m.media_type, m.artifact_type, b.body FROM manifests m JOIN manifest_bodies b ON b.manifest_id = m.id
			WHERE m.repo_id = ? AND m.subject = ? AND m.state = 0 AND m.digest > ?`+typed+" ORDER BY m.digest LIMIT ?", append(args, limit(n))...)
		if err != nil {
			return err
		}
		var listed []byte
		_, err = q.Row(ctx, "SELECT m.children FROM tags t JOIN manifests m ON m.id = t.manifest_id WHERE t.repo_id = ? AND t.name = ?",
			[]any{rid, string(d.Algorithm()) + "-" + d.Encoded()}, &listed)
		if err != nil {
			return err
		}
		for _, c := range digestsOf(listed) {
			if c <= after || slices.ContainsFunc(ds, func(x image.Descriptor) bool { return x.Digest == c }) {
				continue
			}
			args := []any{rid, key(c), key(d)}
			if artifactType != "" {
				args = append(args, artifactType)
			}
			got, err := descriptors(ctx, q, `SELECT m.digest, m.media_type, m.artifact_type, b.body FROM manifests m JOIN manifest_bodies b ON b.manifest_id = m.id
				WHERE m.repo_id = ? AND m.digest = ? AND m.state = 0 AND (m.subject IS NULL OR m.subject <> ?)`+typed, args...)
			if err != nil {
				return err
			}
			ds = append(ds, got...)
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("list referrers of %s: %w", d, mapError(err))
	}
	slices.SortFunc(ds, func(a, b image.Descriptor) int {
		return slices.Compare(key(a.Digest), key(b.Digest))
	})
	if n > 0 && len(ds) > n {
		ds, more = ds[:n], true
	}
	return ds, more, nil
}

// artifactOf is a manifest's artifact type in SQL, without the NULLs.
var artifactOf = fmt.Sprintf("COALESCE(m.artifact_type, CASE m.media_type WHEN 1 THEN '%s' WHEN 3 THEN '%s' ELSE '' END)",
	usualArtifact(image.MediaTypeManifest), usualArtifact(image.MediaTypeDockerManifest))

// keyAfter is a key that comes before all others for "".
func keyAfter(d image.Digest) []byte {
	if d == "" {
		return []byte{0}
	}
	return key(d)
}

func descriptors(ctx context.Context, q db.Query, query string, args ...any) ([]image.Descriptor, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ds []image.Descriptor
	for rows.Next() {
		var k, body []byte
		var x image.Descriptor
		var media int
		var artifact *string
		if err := rows.Scan(&k, &media, &artifact, &body); err != nil {
			return nil, err
		}
		x.Digest, x.Size, x.MediaType = digestOf(k), int64(len(body)), mediaType(media)
		x.ArtifactType = artifactType(x.MediaType, artifact)
		// What was accepted once parses again.
		if m, err := image.ParseManifest(x.MediaType, body); err == nil {
			x.Annotations = m.Annotations
		}
		ds = append(ds, x)
	}
	return ds, rows.Err()
}

func artifactType(mediaType string, stored *string) string {
	if stored == nil {
		return usualArtifact(mediaType)
	}
	return *stored
}
