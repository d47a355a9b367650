package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/forge/object"
)

// git runs git in a folder; input may be nil.
func git(t testing.TB, dir string, input []byte, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

// Git itself takes the objects, finds them whole, and sees the change and
// nothing else; in both formats.
func TestGitAgrees(t *testing.T) {
	for _, f := range []object.Format{object.SHA1, object.SHA256} {
		t.Run(string(f), func(t *testing.T) {
			dir := t.TempDir()
			git(t, dir, nil, "init", "-q", "--object-format="+string(f), "-b", "main")
			for name, body := range map[string]string{"a": "1", "a.b": "sorts before a/", "d/x": "1", "d/e/run": "1", "d/e/y": "1", "d-e": "1", "d0": "1"} {
				file := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(body), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Chmod(filepath.Join(dir, "d/e/run"), 0o755), os.Symlink("a", filepath.Join(dir, "link"))); err != nil {
				t.Fatal(err)
			}
			git(t, dir, nil, "add", "-A")
			git(t, dir, nil, "commit", "-qm", "one")
			parent := git(t, dir, nil, "rev-parse", "HEAD")
			asked := 0
			list := func(_ context.Context, sub string) ([]object.Entry, error) {
				asked++
				var entries []object.Entry
				for line := range strings.Lines(git(t, dir, nil, "ls-tree", parent+":"+sub)) {
					about, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
					fields := strings.Fields(about)
					entries = append(entries, object.Entry{Name: name, Mode: strings.TrimLeft(fields[0], "0"), Hash: fields[2]})
				}
				return entries, nil
			}
			files := map[string][]byte{"d/e/run": []byte("2"), "d/e/f/g/new": []byte("n"), "a": {0xff, 0}, "d/x": nil}
			objects, root, err := object.Splice(t.Context(), f, list, files)
			if err != nil {
				t.Fatal(err)
			}
			if asked != 3 { // root, d, d/e
				t.Errorf("%d folders were asked for", asked)
			}
			commit := object.EncodeCommit(root, []string{parent}, object.Person{Name: "A <\n> B", Email: "a@b"}, time.Unix(1_790_000_000, 0), "subject\n\nbody\n\n")
			git(t, dir, object.Pack(f, append(objects, commit)), "unpack-objects", "-q", "--strict")
			hash := f.Hash(commit)
			git(t, dir, nil, "fsck", "--strict", "--no-dangling", hash)
			if got := git(t, dir, nil, "log", "-1", "--format=%an|%ae|%ct|%B", hash); got != "A  B|a@b|1790000000|subject\n\nbody" {
				t.Errorf("git reads %q", got)
			}
			want := "100644 100644 M a\n000000 100644 A d/e/f/g/new\n100755 100755 M d/e/run\n100644 100644 M d/x"
			var got []string
			for line := range strings.Lines(git(t, dir, nil, "diff-tree", "-r", parent, hash)) {
				about, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
				fields := strings.Fields(strings.TrimPrefix(about, ":"))
				got = append(got, fmt.Sprintf("%s %s %s %s", fields[0], fields[1], fields[4], name))
			}
			if s := strings.Join(got, "\n"); s != want {
				t.Errorf("git sees\n%s\nwant\n%s", s, want)
			}
			// And the server's side of git takes the push, once.
			bare := t.TempDir()
			git(t, bare, nil, "init", "-q", "--bare", "--object-format="+string(f))
			git(t, dir, nil, "push", "-q", bare, parent+":refs/heads/main")
			m := object.Move{Branch: "cairn/x", Old: f.Zero(), New: hash}
			for _, refused := range []bool{false, true} {
				out := receive(t, bare, object.Push(f, m, append(objects, commit)))
				why, err := object.ReadReport(m, out)
				if err != nil || (why != "") != refused {
					t.Errorf("the report: %q, %v; want refused: %v", why, err, refused)
				}
			}
			if at := git(t, bare, nil, "rev-parse", "refs/heads/cairn/x"); at != hash {
				t.Errorf("the branch is at %s, want %s", at, hash)
			}
			gone := object.Move{Branch: "cairn/x", Old: hash, New: f.Zero()}
			if why, err := object.ReadReport(gone, receive(t, bare, object.Push(f, gone, nil))); why != "" || err != nil {
				t.Errorf("deleting: %q, %v", why, err)
			}
		})
	}
}

func receive(t testing.TB, bare string, push []byte) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "receive-pack", "--stateless-rpc", bare)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	cmd.Stdin = bytes.NewReader(push)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git receive-pack: %v", err)
	}
	return out
}

func TestSpliceRefuses(t *testing.T) {
	hash := strings.Repeat("a", 40)
	list := func(_ context.Context, dir string) ([]object.Entry, error) {
		if dir != "" {
			return nil, nil
		}
		return []object.Entry{{Name: "file", Mode: "100644", Hash: hash}, {Name: "link", Mode: "120000", Hash: hash}, {Name: "module", Mode: "160000", Hash: hash}, {Name: "dir", Mode: "40000", Hash: hash}}, nil
	}
	for _, files := range []map[string][]byte{
		{"dir": nil}, {"link": nil}, {"module": nil}, {"link/a": nil}, {"file/a": nil}, {"module/a": nil}, {"../a": nil}, {"a/../b": nil},
		{"/a": nil}, {"a/": nil}, {"a//b": nil}, {".git/config": nil}, {"x/.GIT/config": nil}, {"": nil}, {"q": nil, "q/a": nil}, {strings.Repeat("a/", 80) + "b": nil},
	} {
		_, _, err := object.Splice(t.Context(), object.SHA1, list, files)
		if r := (*object.Refusal)(nil); !errors.As(err, &r) {
			t.Errorf("%q: %v", slices.Collect(maps.Keys(files)), err)
		}
	}
	boom := errors.New("boom")
	if _, _, err := object.Splice(t.Context(), object.SHA1, func(context.Context, string) ([]object.Entry, error) { return nil, boom }, map[string][]byte{"a": nil}); !errors.Is(err, boom) {
		t.Errorf("a list that fails: %v", err)
	}
	if _, _, err := object.Splice(t.Context(), object.SHA1, func(context.Context, string) ([]object.Entry, error) {
		return []object.Entry{{Name: "x", Mode: "100644", Hash: "short"}}, nil
	}, map[string][]byte{"a": nil}); err == nil {
		t.Error("a list with a broken hash is believed")
	}
}

func TestPackRoundTrip(t *testing.T) {
	var objects []object.Object
	for _, n := range []int{0, 1, 15, 16, 2047, 2048, 300_000} {
		objects = append(objects, object.Object{Kind: object.Blob, Body: bytes.Repeat([]byte{byte(n)}, n)})
	}
	for _, f := range []object.Format{object.SHA1, object.SHA256} {
		got, err := object.Unpack(f, object.Pack(f, objects), 1<<20)
		if err != nil || len(got) != len(objects) {
			t.Fatalf("Unpack = %d objects, %v", len(got), err)
		}
		for i := range got {
			if f.Hash(got[i]) != f.Hash(objects[i]) {
				t.Errorf("object %d is another", i)
			}
		}
		if _, err := object.Unpack(f, object.Pack(f, objects), 300_000); err == nil {
			t.Error("more than the limit was unpacked")
		}
	}
}

// What a server answers to a push is from outside.
func FuzzReadReport(f *testing.F) {
	m := object.Move{Branch: "cairn/x"}
	f.Add(object.Report(m, ""))
	f.Add(object.Report(m, "pre-receive hook declined"))
	f.Add([]byte("0000"))
	f.Add([]byte("000eunpack ok\n0016ok refs/heads/other\n0000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		why, err := object.ReadReport(m, b)
		if err == nil && why == "" && !bytes.Contains(b, []byte("ok refs/heads/cairn/x")) {
			t.Errorf("%q is taken for a success", b)
		}
	})
}

func FuzzReadPush(f *testing.F) {
	m := object.Move{Branch: "cairn/x", Old: object.SHA1.Zero(), New: strings.Repeat("a", 40)}
	f.Add(object.Push(object.SHA1, m, []object.Object{{Kind: object.Blob, Body: []byte("x")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, objects, err := object.ReadPush(object.SHA1, b, 1<<20)
		if err != nil {
			return
		}
		n, again, err := object.ReadPush(object.SHA1, object.Push(object.SHA1, m, objects), 1<<20)
		if err != nil || n != m || len(again) != len(objects) {
			t.Errorf("%+v becomes %+v: %v", m, n, err)
		}
	})
}
