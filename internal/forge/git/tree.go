package git

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/forge/object"
)

// Fetch brings commits without their history, and without the content of
// files where that is enough and the server can leave it out.
func (r *Repository) Fetch(ctx context.Context, lean bool, commits ...string) error {
	args := []string{"fetch", "-q", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-filter"}
	if lean {
		args[len(args)-1] = "--filter=blob:none"
	}
	_, err := r.Run(ctx, nil, append(append(args, "origin"), commits...)...)
	return err
}

// List is a folder of a commit that was fetched.
func (r *Repository) List(ctx context.Context, commit, dir string) ([]object.Entry, error) {
	if dir == "." {
		dir = ""
	}
	out, err := r.Run(ctx, nil, "ls-tree", "-z", commit+":"+dir)
	if err != nil {
		return nil, err
	}
	return entries(out)
}

// Files are all files of a commit that was fetched.
func (r *Repository) Files(ctx context.Context, commit string) ([]object.Entry, error) {
	out, err := r.Run(ctx, nil, "ls-tree", "-r", "-z", commit)
	if err != nil {
		return nil, err
	}
	return entries(out)
}

// entries reads what ls-tree prints: "mode kind hash\tname", ended by zero bytes.
func entries(out []byte) ([]object.Entry, error) {
	var list []object.Entry
	for line := range bytes.SplitSeq(out, []byte{0}) {
		if len(line) == 0 {
			continue
		}
		about, name, ok := strings.Cut(string(line), "\t")
		fields := strings.Fields(about)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("git ls-tree prints %.100q", line)
		}
		list = append(list, object.Entry{Name: name, Mode: strings.TrimLeft(fields[0], "0"), Hash: fields[2]})
	}
	return list, nil
}

// A Tar says what a tar of files is like.
type Tar struct {
	Top   string // the folder that they are put in; "" for none
	Links bool   // symbolic links come as what they are; otherwise they are left out
}

// Archive is the files as a tar stream. It is not git's own: attributes in the
// repository can leave files out of that, and change others. Closing it closes
// the repository.
func (r *Repository) Archive(ctx context.Context, as Tar, files []object.Entry) io.ReadCloser {
	ctx, cancel := context.WithTimeout(ctx, r.g.Timeout)
	from, pipe := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pipe.CloseWithError(r.tar(ctx, pipe, as, files))
	}()
	return &tarball{PipeReader: from, end: func() {
		cancel()
		<-done
		r.Close()
	}}
}

type tarball struct {
	*io.PipeReader
	end func()
}

func (t *tarball) Close() error {
	err := t.PipeReader.Close()
	t.end()
	return err
}

func (r *Repository) tar(ctx context.Context, to io.Writer, as Tar, files []object.Entry) error {
	cmd := r.command(ctx, "cat-file", "--batch", "--buffer")
	var ask bytes.Buffer
	for _, e := range files {
		if as.takes(e) {
			fmt.Fprintln(&ask, e.Hash)
		}
	}
	said := &limited{max: 64 << 10}
	cmd.Stdin, cmd.Stderr = &ask, said
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	tw := tar.NewWriter(to)
	out := bufio.NewReaderSize(pipe, 64<<10)
	for _, e := range files {
		if !as.takes(e) {
			continue
		}
		if err = copyFile(tw, out, path.Join(as.Top, e.Name), e); err != nil {
			_ = cmd.Cancel()
			break
		}
	}
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = r.refusal(ctx, "cat-file", werr, said.String())
	}
	if err != nil {
		return err
	}
	return tw.Close()
}

// modeLink is what a tree says of a symbolic link; its content is where it leads.
const modeLink = "120000"

// maxLink bounds where a link leads: no system opens a longer path.
const maxLink = 4096

func (t Tar) takes(e object.Entry) bool {
	return e.Mode == object.ModeFile || e.Mode == object.ModeExecutable || t.Links && e.Mode == modeLink
}

// copyFile copies one answer of cat-file: "hash kind size\n", the content, "\n".
func copyFile(tw *tar.Writer, out *bufio.Reader, name string, e object.Entry) error {
	head, err := out.ReadString('\n')
	if err != nil {
		return err
	}
	fields := strings.Fields(head)
	if len(fields) != 3 || fields[0] != e.Hash {
		return fmt.Errorf("git cat-file answers %.100q for %s", head, name)
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}
	switch e.Mode {
	case object.ModeExecutable:
		h.Mode = 0o755
	case modeLink:
		if size > maxLink {
			return fmt.Errorf("the link %.200q leads to a path of %d bytes, at most %d are possible", name, size, maxLink)
		}
		to := make([]byte, size)
		if _, err := io.ReadFull(out, to); err != nil {
			return err
		}
		h.Mode, h.Typeflag, h.Linkname, h.Size, size = 0o777, tar.TypeSymlink, string(to), 0, 0
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, out, size); err != nil {
		return err
	}
	_, err = out.Discard(1)
	return err
}
