package artifacts

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts/s3"
)

// Deliver puts an output that the run holds where else it is to go. A folder is
// packed first: a tar with gzip unless its Archive says zip, or none, which puts
// each of its files below the key (s3). A file goes as it is unless Archive says
// tar or zip.
func (s *Store) Deliver(ctx context.Context, run string, out task.Output, p task.Produced) error {
	if out.To == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MaxTime)
	defer cancel()
	if err := s.deliver(ctx, run, out, p); err != nil {
		return fmt.Errorf("put the output %.80q where it goes: %w", out.Name, err)
	}
	return nil
}

func (s *Store) deliver(ctx context.Context, run string, out task.Output, p task.Produced) error {
	to := *out.To
	switch {
	case out.Archive == "none" && p.Folder && to.Kind == "s3":
		return s.putEach(ctx, run, to, p.Digest)
	case out.Archive == "none" && p.Folder:
		return fmt.Errorf("a folder without an archive goes to s3 only: %w", ErrInvalid)
	case out.Archive == "none", out.Archive == "" && !p.Folder:
	case out.Archive == "", out.Archive == "tar", out.Archive == "zip":
		var err error
		if p, err = s.packed(ctx, run, path.Base(out.Path), out.Archive, p); err != nil {
			return err
		}
	default:
		return fmt.Errorf("there is no archive of kind %.40q: %w", out.Archive, ErrInvalid)
	}
	f, err := s.OpenOf(ctx, run, p.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.put(ctx, to, f, f.Size(), p.Digest)
}

// put sends the bytes of a blob.
func (s *Store) put(ctx context.Context, to task.Source, body io.Reader, size int64, digest string) error {
	switch to.Kind {
	case "http":
		req, err := s.newRequest(ctx, http.MethodPut, &to, body)
		if err != nil {
			return err
		}
		if req.ContentLength = size; size == 0 {
			req.Body = http.NoBody
		}
		return s.send(req)
	case "s3":
		at, err := locate(&to)
		if err != nil {
			return err
		}
		p, err := s.place(at)
		if err != nil {
			return err
		}
		req, err := p.Put(ctx, at.Key, body, size, image.Digest(digest).Encoded(), s.d.Clock.Now())
		if err != nil {
			return badRequest(err)
		}
		return oversized(s.send(req), size)
	}
	return fmt.Errorf("nothing is put to a place of kind %.40q: %w", to.Kind, ErrInvalid)
}

// maxPut is how many bytes Amazon's S3 stores with one request (API reference,
// PutObject). Other stores take more, so that it is tried.
const maxPut = 5 << 30

// oversized adds to the error of a large object what it is likely to mean.
func oversized(err error, size int64) error {
	if err == nil || size <= maxPut {
		return err
	}
	return fmt.Errorf("%w; it has %d bytes, and many stores take at most %d in one request: hand on a folder of smaller files", err, size, int64(maxPut))
}

// send makes a request that stores something.
func (s *Store) send(req *http.Request) error {
	resp, err := s.writer.Do(req)
	if err != nil {
		return unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
		return nil
	}
	return s.answered(resp)
}

// packed stores an archive of an output.
func (s *Store) packed(ctx context.Context, run, name, archive string, p task.Produced) (task.Produced, error) {
	f, err := s.OpenOf(ctx, run, p.Digest)
	if err != nil {
		return p, err
	}
	defer f.Close()
	pr, pw := io.Pipe()
	go func() {
		var err error
		switch {
		case archive == "zip" && p.Folder:
			err = tarToZip(pw, f)
		case archive == "zip":
			z := zip.NewWriter(pw)
			var w io.Writer
			if w, err = z.Create(name); err == nil {
				if _, err = io.Copy(w, f); err == nil {
					err = z.Close()
				}
			}
		case p.Folder:
			err = compress(pw, func(w io.Writer) error { _, err := io.Copy(w, f); return err })
		default:
			err = compress(pw, func(w io.Writer) error {
				t := tar.NewWriter(w)
				if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: f.Size(), Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
					return err
				}
				if _, err := io.Copy(t, f); err != nil {
					return err
				}
				return t.Close()
			})
		}
		pw.CloseWithError(err)
	}()
	out, err := s.Store(ctx, run, pr)
	pr.CloseWithError(err)
	return out, err
}

func compress(to io.Writer, from func(io.Writer) error) error {
	z := gzip.NewWriter(to)
	if err := from(z); err != nil {
		return err
	}
	return z.Close()
}

// tarToZip writes what lies in a tar as a zip, which has no links.
func tarToZip(to io.Writer, from io.Reader) error {
	z := zip.NewWriter(to)
	t := tar.NewReader(from)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return z.Close()
		}
		if err != nil {
			return invalid(err)
		}
		name, ok := entryName(h.Name)
		if !ok {
			continue
		}
		e := &zip.FileHeader{Name: name, Method: zip.Deflate}
		e.SetMode(h.FileInfo().Mode())
		switch h.Typeflag {
		case tar.TypeDir:
			e.Name, e.Method = name+"/", zip.Store
		case tar.TypeReg:
		default:
			return fmt.Errorf("%.200q is neither a file nor a folder: a zip has nothing else: %w", name, ErrInvalid)
		}
		w, err := z.CreateHeader(e)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = io.Copy(w, t)
		}
		if err != nil {
			return err
		}
	}
}

// putEach puts each file of a folder below a key.
func (s *Store) putEach(ctx context.Context, run string, to task.Source, digest string) error {
	at, err := locate(&to)
	if err != nil {
		return err
	}
	f, err := s.OpenOf(ctx, run, digest)
	if err != nil {
		return err
	}
	defer f.Close()
	t := tar.NewReader(f)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return invalid(err)
		}
		name, ok := entryName(h.Name)
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		one := at
		one.Key = strings.TrimSuffix(at.Key, "/") + "/" + name
		if at.Key == "" {
			one.Key = name
		}
		if h.Size > s3.MaxPut {
			return fmt.Errorf("%.200q has %d bytes, at most %d are written: %w", name, h.Size, int64(s3.MaxPut), ErrInvalid)
		}
		// Its hash goes before its bytes, so it becomes a blob of its own.
		p, err := s.Store(ctx, run, t)
		if err != nil {
			return err
		}
		b, err := s.OpenOf(ctx, run, p.Digest)
		if err != nil {
			return err
		}
		err = s.put(ctx, one, b, p.Size, p.Digest)
		_ = b.Close()
		if err != nil {
			return err
		}
	}
}
