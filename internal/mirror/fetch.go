package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

const (
	// copyBuffer is all the memory that a download takes, however large it is.
	copyBuffer = 128 << 10
	// fruitless is how many times in a row a download may break off without a
	// byte more before it is given up.
	fruitless = 5
)

// A fetch is one blob on its way in. Any number of readers follow it.
type fetch struct {
	m          *Mirror
	u          *source
	repository string
	there      string // the repository, as the upstream calls it
	digest     image.Digest

	begun chan struct{} // closed once size is known, or the fetch has failed
	ended chan struct{} // closed once it is in content, or the fetch has failed

	mu       sync.Mutex
	news     chan struct{} // closed and replaced whenever what follows changes
	size     int64         // -1: not known
	have     int64
	verified bool
	err      error
	here     bool // it was in content already
	file     blob.Following
	users    int // of file
}

// join is the fetch of a blob; it begins if nobody fetches that blob. Call
// leave in the end.
func (m *Mirror) join(u *source, repository, there string, d image.Digest) (*fetch, error) {
	key := repository + "@" + string(d)
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.fetches[key]
	if f == nil {
		f = &fetch{m: m, u: u, repository: repository, there: there, digest: d, size: -1,
			begun: make(chan struct{}), ended: make(chan struct{}), news: make(chan struct{}), users: 1}
		ok := m.spawn(func() {
			f.run(m.ctx)
			m.mu.Lock()
			delete(m.fetches, key)
			m.mu.Unlock()
			f.leave()
		})
		if !ok {
			return nil, errors.New("the registry is stopping")
		}
		m.fetches[key] = f
	}
	f.mu.Lock()
	f.users++
	f.mu.Unlock()
	return f, nil
}

// leave closes the file after the last of its users.
func (f *fetch) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 && f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
}

// change tells all who follow.
func (f *fetch) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
	close(f.news)
	f.news = make(chan struct{})
}

// run fetches the blob, once.
func (f *fetch) run(ctx context.Context) {
	err := f.fetch(ctx)
	f.change(func() { f.err = err })
	if err != nil && ctx.Err() == nil {
		f.m.log.Warn("cannot fetch a blob", "repository", f.repository, "digest", f.digest, "err", err)
	}
	f.begin()
	close(f.ended)
}

// begin lets those go who wait for the size.
func (f *fetch) begin() {
	select {
	case <-f.begun:
	default:
		close(f.begun)
	}
}

func (f *fetch) fetch(ctx context.Context) error {
	// It may have come since somebody looked.
	if b, err := f.m.content.StatBlob(ctx, f.repository, f.digest); err == nil {
		f.mu.Lock()
		f.here, f.size = true, b.Size
		f.mu.Unlock()
		return nil
	}
	in, err := f.m.content.Intake(ctx, f.repository, f.digest)
	if err != nil {
		return err
	}
	defer in.Close()
	file, err := in.Follow()
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.file = file
	f.mu.Unlock()
	if err := f.download(ctx, in); err != nil {
		return err
	}
	if err := in.Verify(); err != nil {
		return unreachable(f.u.Host, "sent bytes that are not the blob %s: %v", f.digest, err)
	}
	f.change(func() { f.verified = true })
	// Who follows has it now. That it is kept is for those who come later.
	_, err = in.Commit(ctx)
	return err
}

// download brings all bytes, going on where the upstream breaks off.
func (f *fetch) download(ctx context.Context, in *content.Intake) error {
	tries := 0
	for {
		before := in.Size()
		err, again := f.part(ctx, in)
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		if in.Size() > before {
			tries = 0
		}
		if tries++; tries > fruitless {
			return err
		}
		f.m.log.Info("a download broke off and goes on", "repository", f.repository, "digest", f.digest, "at", in.Size(), "err", err)
		if err := clock.Sleep(ctx, f.m.clock, backoff<<(tries-1)); err != nil {
			return err
		}
	}
}

// part is one request. again: what it brought is good, and there is more.
func (f *fetch) part(ctx context.Context, in *content.Intake) (err error, again bool) {
	ctx, body, cancel := upstream.Patient(ctx, f.u.stall)
	defer cancel()
	from := in.Size()
	resp, e := f.u.client.Ask(ctx, upstream.Question{Method: http.MethodGet, Repository: f.there, What: "blobs/" + string(f.digest), Offset: from})
	if e != nil {
		// What ask did not get by asking several times it will not get now.
		return e, false
	}
	r := body(resp.Body)
	defer r.Close()
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(from, 10)+"-") {
			return unreachable(f.u.Host, "was asked for %s from byte %d and sends %.60q", f.digest, from, resp.Header.Get("Content-Range")), false
		}
	} else if from > 0 { // it sends all of it again
		from = 0
	}
	if resp.ContentLength >= 0 {
		if err := f.sized(from + resp.ContentLength); err != nil {
			return err, false
		}
	}
	f.mu.Lock()
	limit := f.size
	f.mu.Unlock()
	known := limit >= 0
	if !known {
		limit = f.u.MaxBlob
	}
	if skip := in.Size() - from; skip > 0 {
		if _, err := io.CopyN(io.Discard, r, skip); err != nil {
			return unreachable(f.u.Host, "broke off in the middle of %s: %v", f.digest, err), true
		}
	}
	buf := make([]byte, copyBuffer)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if in.Size()+int64(n) > limit {
				return unreachable(f.u.Host, "sends more than the %d bytes that %s may have", limit, f.digest), false
			}
			if _, err := in.Write(buf[:n]); err != nil {
				return err, false
			}
			f.u.bytes.Add(int64(n))
			f.change(func() { f.have = in.Size() })
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && (!known || in.Size() == limit):
			if !known {
				f.mu.Lock()
				f.size = in.Size()
				f.mu.Unlock()
			}
			return nil, false
		default:
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return unreachable(f.u.Host, "broke off in the middle of %s: %v", f.digest, err), true
		}
	}
}

// sized notes how large the upstream says that the blob is.
func (f *fetch) sized(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch want, known := f.m.pending.size(f.repository, f.digest); {
	case size > f.u.MaxBlob:
		return unreachable(f.u.Host, "has %s with %d bytes, more than max_blob of its mirror allows (%d)", f.digest, size, f.u.MaxBlob)
	case known && size != want, f.size >= 0 && f.size != size:
		return unreachable(f.u.Host, "has %s with %d bytes, which is not the size that was announced", f.digest, size)
	}
	f.size = size
	f.begin()
	return nil
}

// Blob opens a blob that is not here, fetching it. The reader follows the
// download: it waits for bytes that are not here yet, until ctx ends, and does
// not give out the last one before the digest of the whole was compared. With
// whole it begins only when the blob is here. The error is an [*Error], or one
// of content's.
func (m *Mirror) Blob(ctx context.Context, repository string, d image.Digest, whole bool) (blob.Reader, error) {
	u, there, err := m.upstreamOf(repository)
	if err != nil {
		return nil, err
	}
	f, err := m.join(u, repository, there, d)
	if err != nil {
		return nil, err
	}
	until := f.begun
	if whole {
		until = f.ended
	}
	if err := f.wait(ctx, until); err != nil {
		f.leave()
		return nil, err
	}
	f.mu.Lock()
	size, here := f.size, f.here
	f.mu.Unlock()
	if size <= 0 && !here && !whole { // there is no last byte to hold back
		if err := f.wait(ctx, f.ended); err != nil {
			f.leave()
			return nil, err
		}
		here = true
	}
	if here || whole {
		f.leave()
		return m.content.OpenBlob(ctx, repository, d)
	}
	return &follower{f: f, ctx: ctx, size: size}, nil
}

func (f *fetch) wait(ctx context.Context, until <-chan struct{}) error {
	select {
	case <-until:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// StatBlob is the size of a blob that is not here, without fetching it.
func (m *Mirror) StatBlob(ctx context.Context, repository string, d image.Digest) (content.Blob, error) {
	u, there, err := m.upstreamOf(repository)
	if err != nil {
		return content.Blob{}, err
	}
	if size, known := m.pending.size(repository, d); known {
		return content.Blob{Digest: d, Size: size}, nil
	}
	resp, e := u.client.Ask(ctx, upstream.Question{Method: http.MethodHead, Repository: there, What: "blobs/" + string(d)})
	if e != nil {
		return content.Blob{}, e
	}
	upstream.Drain(resp.Body)
	if resp.ContentLength < 0 {
		return content.Blob{}, unreachable(u.Host, "does not say how large %s is", d)
	}
	return content.Blob{Digest: d, Size: resp.ContentLength}, nil
}

// ensure waits until a blob is here.
func (m *Mirror) ensure(ctx context.Context, u *source, repository, there string, d image.Digest) error {
	if _, err := m.content.StatBlob(ctx, repository, d); err == nil {
		return nil
	}
	f, err := m.join(u, repository, there, d)
	if err != nil {
		return err
	}
	defer f.leave()
	return f.wait(ctx, f.ended)
}

// A follower reads a blob while it comes.
type follower struct {
	f    *fetch
	ctx  context.Context
	size int64
	pos  int64
	gone bool
}

func (r *follower) Size() int64 { return r.size }

func (r *follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		f := r.f
		f.mu.Lock()
		news, err, file := f.news, f.err, f.file
		end := min(f.have, r.size-1)
		if f.verified {
			end = r.size
		}
		verified := f.verified
		f.mu.Unlock()
		switch {
		case r.pos >= r.size:
			return 0, io.EOF
		case r.pos < end:
			n, err := file.ReadAt(p[:min(int64(len(p)), end-r.pos)], r.pos)
			r.pos += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		case err != nil && !verified:
			return 0, err
		}
		select {
		case <-news:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}

func (r *follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek before the start of blob %s", r.f.digest)
	}
	r.pos = offset
	return offset, nil
}

// Close stops following; the download goes on.
func (r *follower) Close() error {
	if !r.gone {
		r.gone = true
		r.f.leave()
	}
	return nil
}
