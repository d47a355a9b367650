package keep

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/files"
)

// root is what programs of this keeper see as theirs.
func (k *kept) root() (*files.Root, error) {
	if k.files == nil {
		r, err := files.OpenRoot("/")
		if err != nil {
			return nil, fmt.Errorf("open the root: %w", err)
		}
		k.files = r
	}
	return k.files, nil
}

// owner of what is written; nil for the keeper's own user.
func (k *kept) owner() *files.Owner {
	if k.who.UID == uint32(os.Geteuid()) && k.who.GID == uint32(os.Getegid()) {
		return nil
	}
	return &files.Owner{UID: int(k.who.UID), GID: int(k.who.GID)}
}

// setup makes what the next program finds.
func (k *kept) setup(s Setup) report {
	if err := k.furnish(s); err != nil {
		return failure(err)
	}
	return report{Who: &k.who}
}

func (k *kept) furnish(s Setup) error {
	root, err := k.root()
	if err != nil {
		return err
	}
	k.who = self()
	if k.who, err = user(root, s.User, s.Home); err != nil {
		return err
	}
	for _, f := range s.Folders {
		if err := root.Mkdir(f.Path, f.Mode, k.owner()); err != nil && !f.Try {
			return err
		}
	}
	if k.inside != nil && !k.used {
		// What is there now may be there for the next task, for which the same
		// is set up.
		if err := k.inside.Mark(); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		if err := root.Write(f.Path, f.Mode, k.owner(), bytes.NewReader(f.Content)); err != nil {
			return err
		}
	}
	return nil
}

// put writes what comes through a pipe.
func (k *kept) put(p put, from []*os.File) report {
	defer closeAll(from)
	k.used = true
	root, err := k.root()
	if err == nil && len(from) != 1 {
		err = errors.New("nothing to read from")
	}
	if err != nil {
		return failure(err)
	}
	var applied *files.Applied
	switch p.Kind {
	case putFile:
		err = root.Write(p.Path, p.Mode, k.owner(), from[0])
	case putFolder:
		err = root.Unpack(p.Path, k.owner(), from[0], p.Limits)
	case putLayer:
		var a files.Applied
		a, err = root.Layer(from[0], p.Limits, p.OneOwner)
		applied = &a
	default:
		err = fmt.Errorf("no way to write a %q", p.Kind)
	}
	if err != nil {
		return failure(err)
	}
	return report{Applied: applied}
}

// take writes what lies at a path to a pipe, after it said what it is.
func (k *kept) take(path string, to []*os.File) report {
	defer closeAll(to)
	root, err := k.root()
	if err == nil && len(to) != 1 {
		err = errors.New("nothing to write to")
	}
	if err != nil {
		return failure(err)
	}
	f, err := root.Open(path)
	if err != nil {
		return failure(err)
	}
	defer f.Close()
	k.tell(report{Found: &found{Folder: f.Folder, Size: f.Size, Mode: f.Mode}})
	if _, err := f.WriteTo(to[0]); err != nil && !errors.Is(err, unix.EPIPE) { // who has enough closes
		return failure(fmt.Errorf("read %s: %w", path, err))
	}
	return report{}
}
