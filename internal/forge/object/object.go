// Package object makes the few git objects that one commit needs, and the
// message that carries them to a server.
//
// It owns the encoding of blobs, trees and commits, the pack that holds new
// ones, and the two messages of a push. It promises that a commit differs from
// its parent in the given files only, that a file's mode stays, and that the
// push names the commit which the branch must be at: the server moves it from
// there or not at all, whatever kind of forge it is. It reads no repository
// and knows no history: whoever asks lists the few trees on the way.
//
// Sources: gitformat-pack, gitprotocol-pack and gitprotocol-http of git's
// documentation.
package object

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// A Kind is what an object is, as packs number them.
type Kind byte

// The kinds of objects that are made here.
const (
	Commit Kind = 1
	Tree   Kind = 2
	Blob   Kind = 3
)

func (k Kind) String() string {
	switch k {
	case Commit:
		return "commit"
	case Tree:
		return "tree"
	case Blob:
		return "blob"
	}
	return "kind " + strconv.Itoa(int(k))
}

// An Object is one, whole.
type Object struct {
	Kind Kind
	Body []byte
}

// Modes of tree entries.
const (
	ModeFile       = "100644"
	ModeExecutable = "100755"
	ModeTree       = "40000"
)

// An Entry of a tree.
type Entry struct {
	Name string
	Mode string // octal, as git writes it: 100644, 40000
	Hash string
}

// IsTree: the entry is a folder.
func (e Entry) IsTree() bool { return e.Mode == ModeTree }

// A Format is how objects are hashed; a repository has one.
type Format string

// The formats there are.
const (
	SHA1   Format = "sha1"
	SHA256 Format = "sha256"
)

// FormatOf tells a repository's format by a hash of it.
func FormatOf(hash string) Format {
	if len(hash) == hex.EncodedLen(sha256.Size) {
		return SHA256
	}
	return SHA1
}

// Valid reports whether s is a whole hash of either format, in lower case.
func Valid(s string) bool {
	if len(s) != hex.EncodedLen(sha1.Size) && len(s) != hex.EncodedLen(sha256.Size) {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// Zero is the hash that stands for no object.
func (f Format) Zero() string {
	if f == SHA256 {
		return strings.Repeat("0", hex.EncodedLen(sha256.Size))
	}
	return strings.Repeat("0", hex.EncodedLen(sha1.Size))
}

// Hash is an object's name.
func (f Format) Hash(o Object) string {
	b := append(fmt.Appendf(nil, "%s %d\x00", o.Kind, len(o.Body)), o.Body...)
	return hex.EncodeToString(f.sum(b))
}

func (f Format) sum(b []byte) []byte {
	if f == SHA256 {
		s := sha256.Sum256(b)
		return s[:]
	}
	s := sha1.Sum(b)
	return s[:]
}

// EncodeTree is the object of a folder. Entries may come in any order.
func EncodeTree(entries []Entry) (Object, error) {
	entries = slices.Clone(entries)
	// A folder sorts as if its name ended with a slash.
	key := func(e Entry) string {
		if e.IsTree() {
			return e.Name + "/"
		}
		return e.Name
	}
	sort.Slice(entries, func(i, j int) bool { return key(entries[i]) < key(entries[j]) })
	var b bytes.Buffer
	for i, e := range entries {
		hash, err := hex.DecodeString(e.Hash)
		if err != nil || !Valid(e.Hash) {
			return Object{}, fmt.Errorf("entry %q has the hash %.80q, which is none", e.Name, e.Hash)
		}
		if e.Name == "" || strings.ContainsAny(e.Name, "/\x00") {
			return Object{}, fmt.Errorf("%.80q is no name of a file", e.Name)
		}
		if i > 0 && entries[i-1].Name == e.Name {
			return Object{}, fmt.Errorf("%q is there twice", e.Name)
		}
		fmt.Fprintf(&b, "%s %s\x00", e.Mode, e.Name)
		b.Write(hash)
	}
	return Object{Kind: Tree, Body: b.Bytes()}, nil
}

// DecodeTree reads what [EncodeTree] writes.
func DecodeTree(f Format, body []byte) ([]Entry, error) {
	size := len(f.Zero()) / 2
	var entries []Entry
	for len(body) > 0 {
		mode, rest, ok := bytes.Cut(body, []byte{' '})
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok || !ok2 || len(rest) < size {
			return nil, errors.New("broken tree")
		}
		entries = append(entries, Entry{Mode: string(mode), Name: string(name), Hash: hex.EncodeToString(rest[:size])})
		body = rest[size:]
	}
	return entries, nil
}

// A Person is whom a commit names.
type Person struct{ Name, Email string }

// line is the person as commits write it; what would end the line is dropped.
func (p Person) line(at time.Time) string {
	clean := func(s string) string {
		return strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r == '<' || r == '>' || r == 0x7f {
				return -1
			}
			return r
		}, s))
	}
	return fmt.Sprintf("%s <%s> %d +0000", clean(p.Name), clean(p.Email), at.Unix())
}

// EncodeCommit is the object of a commit; no parents make it the first of its history.
func EncodeCommit(tree string, parents []string, by Person, at time.Time, message string) Object {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author %[1]s\ncommitter %[1]s\n\n%s\n", by.line(at), strings.TrimRight(strings.ReplaceAll(message, "\x00", ""), "\n"))
	return Object{Kind: Commit, Body: b.Bytes()}
}

// A Refusal is why a file cannot be written: trying again does not help.
type Refusal struct{ Path, Why string }

func (e *Refusal) Error() string { return fmt.Sprintf("%s %s", e.Path, e.Why) }

// List lists a folder ("" for the root) of the commit that is built on.
type List func(ctx context.Context, dir string) ([]Entry, error)

// maxDepth bounds how many folders are asked for on the way to one file.
const maxDepth = 64

// Splice writes files into a tree: it returns the new objects, blobs and trees,
// and the hash of the new root. Only folders on the way to a file are listed.
func Splice(ctx context.Context, f Format, list List, files map[string][]byte) (objects []Object, root string, err error) {
	s := splice{f: f, list: list}
	root, err = s.folder(ctx, "", true, files, 0)
	return s.objects, root, err
}

type splice struct {
	f       Format
	list    List
	objects []Object
}

func (s *splice) add(o Object) string {
	s.objects = append(s.objects, o)
	return s.f.Hash(o)
}

// folder makes the tree of dir with the files, whose paths are relative to it.
func (s *splice) folder(ctx context.Context, dir string, exists bool, files map[string][]byte, depth int) (string, error) {
	if depth > maxDepth {
		return "", &Refusal{dir, "lies too deep"}
	}
	var entries []Entry
	if exists {
		var err error
		if entries, err = s.list(ctx, dir); err != nil {
			return "", err
		}
	}
	at := map[string]int{}
	for i, e := range entries {
		at[e.Name] = i
	}
	below := map[string]map[string][]byte{}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		first, rest, deeper := strings.Cut(name, "/")
		full := path.Join(dir, name)
		if first == "" || first == "." || first == ".." || strings.EqualFold(first, ".git") || deeper && rest == "" {
			return "", &Refusal{full, "is no path of a file in a repository"}
		}
		i, there := at[first]
		if deeper {
			if there && !entries[i].IsTree() {
				return "", &Refusal{full, "would lie below something that is no folder"}
			}
			if below[first] == nil {
				below[first] = map[string][]byte{}
			}
			below[first][rest] = files[name]
			continue
		}
		e := Entry{Name: first, Mode: ModeFile, Hash: s.add(Object{Blob, files[name]})}
		if !there {
			at[first] = len(entries)
			entries = append(entries, e)
			continue
		}
		if m := entries[i].Mode; m != ModeFile && m != ModeExecutable {
			return "", &Refusal{full, "is no plain file (mode " + m + ")"}
		}
		e.Mode = entries[i].Mode
		entries[i] = e
	}
	for _, first := range names {
		first, _, _ = strings.Cut(first, "/")
		files, ok := below[first]
		if !ok {
			continue
		}
		delete(below, first)
		i, there := at[first]
		if there && !entries[i].IsTree() {
			return "", &Refusal{path.Join(dir, first), "would be a file and a folder"}
		}
		hash, err := s.folder(ctx, path.Join(dir, first), there, files, depth+1)
		if err != nil {
			return "", err
		}
		if there {
			entries[i].Hash = hash
		} else {
			entries = append(entries, Entry{Name: first, Mode: ModeTree, Hash: hash})
		}
	}
	o, err := EncodeTree(entries)
	if err != nil {
		return "", err
	}
	return s.add(o), nil
}
