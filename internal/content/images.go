package content

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

const (
	// scanRepos and scanImages bound what one read view of a scan covers: a
	// few milliseconds, and a few megabytes.
	scanRepos  = 200
	scanImages = 20_000
)

const imageColumns = `m.repo_id, m.id, m.digest, m.media_type, m.artifact_type, m.size, m.config, m.subject, m.children, m.pushed, m.state, m.version`

// row is an image and where it stands in SQL.
type row struct {
	rid, id int64
	Image
}

// readImages runs a statement that selects imageColumns, and fills in the tags
// and what is known of the hidden ones. repos names the repositories.
func readImages(ctx context.Context, q db.Query, repos map[int64]string, query string, args ...any) ([]row, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var images []row
	// Raw: these are only looked at, a million times.
	var digest, config, subject, children sql.RawBytes
	for rows.Next() {
		var im row
		var pushed int64
		var media int
		var artifact *string
		if err := rows.Scan(&im.rid, &im.id, &digest, &media, &artifact, &im.Size, &config, &subject, &children, &pushed, &im.State, &im.Version); err != nil {
			return nil, err
		}
		im.Repository, im.Digest, im.MediaType = repos[im.rid], digestOf(digest), mediaType(media)
		im.ArtifactType = artifactType(im.MediaType, artifact)
		im.Config, im.Subject, im.Children, im.Pushed = digestOf(config), digestOf(subject), digestsOf(children), timeOf(pushed)
		images = append(images, im)
	}
	return images, rows.Err()
}

// dress gives the images of one repository range their tags. Each of the three
// statements takes args.
func dress(ctx context.Context, q db.Query, images []row, tags, hidden, hiddenTags string, args ...any) error {
	at := make(map[int64]int, len(images))
	anyHidden := false
	for i := range images {
		at[images[i].id] = i
		anyHidden = anyHidden || images[i].State != Live
	}
	addTags := func(query string) error {
		rows, err := q.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, pushed int64
			var t Tag
			if err := rows.Scan(&id, &t.Name, &pushed); err != nil {
				return err
			}
			t.Pushed = timeOf(pushed)
			if i, ok := at[id]; ok {
				images[i].Tags = append(images[i].Tags, t)
			}
		}
		return rows.Err()
	}
	if err := addTags(tags); err != nil {
		return err
	}
	if anyHidden {
		if err := addTags(hiddenTags); err != nil {
			return err
		}
		rows, err := q.Query(ctx, hidden, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, when int64
			var reason string
			if err := rows.Scan(&id, &when, &reason); err != nil {
				return err
			}
			if i, ok := at[id]; ok {
				images[i].HiddenAt, images[i].Reason = timeOf(when), reason
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	for i := range images {
		im := &images[i].Image
		if len(im.Tags) > 1 {
			slices.SortFunc(im.Tags, func(a, b Tag) int { return cmp.Compare(a.Name, b.Name) })
		}
		if im.Subject != "" {
			continue
		}
		for _, t := range im.Tags {
			if d, ok := image.FallbackSubject(t.Name); ok {
				im.Subject = d
				break
			}
		}
	}
	return nil
}

// repoImages reads up to n images of one repository with a digest from from
// on, itself included.
func repoImages(ctx context.Context, q db.Query, rid int64, repo string, from []byte, n int) ([]row, error) {
	images, err := readImages(ctx, q, map[int64]string{rid: repo},
		"SELECT "+imageColumns+" FROM manifests m WHERE m.repo_id = ? AND m.digest >= ? ORDER BY m.digest LIMIT ?", rid, from, n)
	if err != nil || len(images) == 0 {
		return nil, err
	}
	to := key(images[len(images)-1].Digest)
	const of = " FROM manifests m JOIN %s t ON t.manifest_id = m.id WHERE m.repo_id = ? AND m.digest >= ? AND m.digest <= ?"
	err = dress(ctx, q, images,
		"SELECT t.manifest_id, t.name, t.pushed"+fmt.Sprintf(of, "tags"),
		"SELECT id, hidden_at, reason FROM manifests WHERE repo_id = ? AND digest >= ? AND digest <= ? AND state <> 0",
		"SELECT t.manifest_id, t.name, t.pushed"+fmt.Sprintf(of, "hidden_tags"),
		rid, from, to)
	return images, err
}

// ImagesOf lists all images of a repository, live and hidden, by digest.
// ErrRepositoryUnknown.
func (s *Store) ImagesOf(ctx context.Context, repo string) ([]Image, error) {
	var images []Image
	for from := []byte{0}; ; {
		var got []row
		err := s.db.Read(ctx, func(q db.Query) error {
			rid, err := repoID(ctx, q, repo)
			if err != nil {
				return err
			}
			got, err = repoImages(ctx, q, rid, repo, from, s.scanImages)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list images of %s: %w", repo, mapError(err))
		}
		for i := range got {
			images = append(images, got[i].Image)
		}
		if len(got) < s.scanImages {
			return images, nil
		}
		from = append(key(got[len(got)-1].Digest), 0) // the next that can be
	}
}

// Scan calls f for every repository with an image, live or hidden, and all
// its images, in order of the repository's name, beginning after the given
// one. It reads in short pages: what is written meanwhile may or may not be
// seen, and Image.Version tells later whether an image changed. The images are
// f's to keep. An error of f ends the scan.
func (s *Store) Scan(ctx context.Context, after string, f func(repo string, images []Image) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Two pages are read at a time, in ranges of names that are found first:
	// reading is what takes the time, and there is more than one core.
	type result struct {
		groups []group
		err    error
	}
	pages := make(chan chan result, 1)
	go func() {
		defer close(pages)
		for from := after; ; {
			to, last, err := s.pageEnd(ctx, from)
			c := make(chan result, 1)
			select {
			case pages <- c:
			case <-ctx.Done():
				return
			}
			if err != nil || last && to == "" {
				c <- result{err: err}
				return
			}
			go func(from string) {
				groups, err := s.scanPage(ctx, from, to)
				c <- result{groups, err}
			}(from)
			if last {
				return
			}
			from = to
		}
	}()
	for c := range pages {
		r := <-c
		if r.err != nil {
			return fmt.Errorf("scan images: %w", mapError(r.err))
		}
		for _, g := range r.groups {
			if g.cut {
				images, err := s.ImagesOf(ctx, g.repo)
				if err != nil {
					return fmt.Errorf("scan images: %w", err)
				}
				g.images = images
			}
			if len(g.images) == 0 {
				continue
			}
			if err := f(g.repo, g.images); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// group is one repository in a page.
type group struct {
	repo   string
	images []Image
	cut    bool // did not fit the page: read it by itself
}

// pageEnd finds the name of the last repository of the page after from. last
// says that there is none behind it; then to is "" when the page is empty.
func (s *Store) pageEnd(ctx context.Context, from string) (to string, last bool, err error) {
	var names []string
	err = s.db.ReadOne(ctx, func(q db.Query) (err error) {
		names, err = stringsOf(q.Query(ctx, "SELECT name FROM repositories WHERE name > ? ORDER BY name LIMIT ?", from, s.scanRepos))
		return err
	})
	if err != nil || len(names) == 0 {
		return "", true, err
	}
	return names[len(names)-1], len(names) < s.scanRepos, nil
}

// scanPage reads the images of the repositories after from, up to and with to.
func (s *Store) scanPage(ctx context.Context, from, to string) ([]group, error) {
	var groups []group
	err := s.db.Read(ctx, func(q db.Query) error {
		names := map[int64]string{}
		var order []int64
		rows, err := q.Query(ctx, "SELECT id, name FROM repositories WHERE name > ? AND name <= ? ORDER BY name", from, to)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var name string
			if err := rows.Scan(&id, &name); err != nil {
				return err
			}
			names[id] = name
			order = append(order, id)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		const of = " FROM repositories r JOIN manifests m ON m.repo_id = r.id "
		const where = " WHERE r.name > ? AND r.name <= ?"
		images, err := readImages(ctx, q, names, "SELECT "+imageColumns+of+where+" ORDER BY r.name, m.digest LIMIT ?", from, to, s.scanImages)
		if err != nil {
			return err
		}
		cut := len(images) == s.scanImages
		if cut {
			// Take the last repository, and those behind it, by themselves.
			end := images[len(images)-1].rid
			k := slices.IndexFunc(images, func(im row) bool { return im.rid == end })
			images = images[:k]
			to := ""
			for i, id := range order {
				if id == end {
					if i > 0 {
						to = names[order[i-1]]
					}
					for _, id := range order[i:] {
						groups = append(groups, group{repo: names[id], cut: true})
					}
					break
				}
			}
			if to == "" {
				return nil
			}
			return s.dressPage(ctx, q, &groups, images, from, to)
		}
		return s.dressPage(ctx, q, &groups, images, from, to)
	})
	return groups, err
}

// dressPage gives the images their tags and puts their groups before groups.
func (s *Store) dressPage(ctx context.Context, q db.Query, groups *[]group, images []row, from, to string) error {
	const where = " WHERE r.name > ? AND r.name <= ?"
	err := dress(ctx, q, images,
		"SELECT t.manifest_id, t.name, t.pushed FROM repositories r JOIN tags t ON t.repo_id = r.id"+where,
		"SELECT m.id, m.hidden_at, m.reason FROM repositories r JOIN manifests m ON m.repo_id = r.id"+where+" AND m.state <> 0",
		"SELECT t.manifest_id, t.name, t.pushed FROM repositories r JOIN hidden_tags t ON t.repo_id = r.id"+where,
		from, to)
	if err != nil {
		return err
	}
	var first []group
	for i := 0; i < len(images); {
		j := i
		for j < len(images) && images[j].rid == images[i].rid {
			j++
		}
		g := group{repo: images[i].Repository, images: make([]Image, 0, j-i)}
		for _, im := range images[i:j] {
			g.images = append(g.images, im.Image)
		}
		first = append(first, g)
		i = j
	}
	*groups = append(first, *groups...)
	return nil
}

// Peek describes what a tag or digest names, in whatever state, and changes
// nothing. A tag that only hidden images had resolves to the last of them.
func (s *Store) Peek(ctx context.Context, repo, ref string) (Image, error) {
	var im Image
	err := s.db.Read(ctx, func(q db.Query) error {
		rid, err := repoID(ctx, q, repo)
		if err != nil {
			return err
		}
		var digest []byte
		var ok bool
		if isDigest(ref) {
			if err := checkDigest(image.Digest(ref)); err != nil {
				return err
			}
			ok, err = q.Row(ctx, "SELECT digest FROM manifests WHERE repo_id = ? AND digest = ?", []any{rid, key(image.Digest(ref))}, &digest)
		} else {
			ok, err = q.Row(ctx, "SELECT m.digest FROM tags t JOIN manifests m ON m.id = t.manifest_id WHERE t.repo_id = ? AND t.name = ?", []any{rid, ref}, &digest)
			if err == nil && !ok {
				ok, err = q.Row(ctx, `SELECT m.digest FROM hidden_tags t JOIN manifests m ON m.id = t.manifest_id WHERE t.repo_id = ? AND t.name = ?
					ORDER BY m.hidden_at DESC, t.pushed DESC, m.id DESC LIMIT 1`, []any{rid, ref}, &digest)
			}
		}
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %s of %s", ErrManifestUnknown, ref, repo)
		}
		images, err := repoImages(ctx, q, rid, repo, digest, 1)
		if err != nil {
			return err
		}
		if len(images) == 1 {
			im = images[0].Image
		}
		return nil
	})
	if err != nil {
		return Image{}, mapError(err)
	}
	return im, nil
}

// BlobsOf calls f for each blob of each manifest of the repository, hidden
// ones included, manifest by manifest. f must not call the store.
func (s *Store) BlobsOf(ctx context.Context, repo string, f func(manifest, blob image.Digest, size int64) error) error {
	for from := []byte{0}; ; {
		var manifests int
		err := s.db.Read(ctx, func(q db.Query) error {
			rid, err := repoID(ctx, q, repo)
			if err != nil {
				return err
			}
			// Whole manifests, so that the pages need no place within one.
			rows, err := q.Query(ctx, `SELECT m.digest, b.digest, b.size FROM
				(SELECT id, digest FROM manifests WHERE repo_id = ? AND digest >= ? ORDER BY digest LIMIT ?) m
				LEFT JOIN manifest_blobs x ON x.manifest_id = m.id LEFT JOIN blobs b ON b.id = x.blob_id ORDER BY m.digest`, rid, from, s.scanImages/10+1)
			if err != nil {
				return err
			}
			defer rows.Close()
			var last []byte
			var m image.Digest
			for rows.Next() {
				var mk, bk sql.RawBytes
				var size *int64
				if err := rows.Scan(&mk, &bk, &size); err != nil {
					return err
				}
				if !bytes.Equal(mk, last) {
					last = append(last[:0], mk...)
					m = digestOf(mk)
					manifests++
				}
				if size == nil { // an index has none
					continue
				}
				if err := f(m, digestOf(bk), *size); err != nil {
					return err
				}
			}
			from = append(last, 0) // the next that can be
			return rows.Err()
		})
		if err != nil {
			return fmt.Errorf("list blobs of %s: %w", repo, mapError(err))
		}
		if manifests < s.scanImages/10+1 {
			return nil
		}
	}
}
