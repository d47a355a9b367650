package work_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/test/program"
)

// awkward are items that something between a list and a program might change.
func awkward() []string {
	big := func(piece string) string { return strings.Repeat(piece, 1_000_000/len(piece)) }
	return []string{"plain", "", " ", "\n", "two\nlines\n", "\r\n", `"`, `'`, "`id`", `\`, `\n`, "$HOME", "$(id)", "{}", "{{item}}", "${{ item }}", "{{=1}}", "-rf", "--",
		"a\x00b", "\x00", "😀", "é\u0301", "\u202e", "\ufeff", "null", "1e3", "[1]", "{\"a\": 1}", "%s", "*", "~", "a b", ";reboot", "|", "&", "\t", "\x1b[31m", "\u2028",
		big("x"), big("\n"), big("😀"), big("\"\\"), big("\x00")}
}

// Each item is what the program gets, byte by byte: in a file, as an output
// and in the list of all outputs; and as an argument where one can hold it.
func TestAwkwardItems(t *testing.T) {
	t.Parallel()
	s := newServer(t, filepath.Join(t.TempDir(), "data"), "work: {pool: \"off\"}\n")
	f := newFarm(t, s, 1)
	list := awkward()
	body, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "items.json")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}

	t.Run("--item-file", func(t *testing.T) {
		id := s.run(t, "far", "--pool", "far", "--each", file, "--item-file", "/item", "--command", "--", "sha256sum", "/item")
		if r := s.wait(id, time.Minute); r.Phase != "succeeded" || r.Tasks.Succeeded != len(list) {
			t.Fatalf("%+v\n%s", r, s.tree(id))
		}
		got := s.itemLines(t, id)
		for i, item := range list {
			sum := sha256.Sum256([]byte(item))
			if want := hex.EncodeToString(sum[:]) + "  /item"; len(got[i]) != 1 || got[i][0] != want {
				t.Errorf("item %d (%.20q): its file has %q, want %q", i, item, got[i], want)
			}
		}
	})
	t.Run("arguments", func(t *testing.T) {
		some := slices.DeleteFunc(awkward(), func(s string) bool { return len(s) > 100_000 || strings.Contains(s, "\x00") })
		b, err := json.Marshal(some)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "some.json")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		id := s.run(t, "far", "--pool", "far", "--each", file, "--command", "--", "sh", "-c", `printf %s "$1" | sha256sum`, "sh", "{}")
		if r := s.wait(id, time.Minute); r.Phase != "succeeded" || r.Tasks.Succeeded != len(some) {
			t.Fatalf("%+v\n%s", r, s.tree(id))
		}
		got := s.itemLines(t, id)
		for i, item := range some {
			sum := sha256.Sum256([]byte(item))
			if want := hex.EncodeToString(sum[:]) + "  -"; len(got[i]) != 1 || got[i][0] != want {
				t.Errorf("item %d (%.20q): the argument is %q, want %q", i, item, got[i], want)
			}
		}
	})
	t.Run("outputs", func(t *testing.T) {
		doc := `apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: echo}
spec:
  inputs: {items: file}
  tasks:
  - name: echo
    image: far
    forEach: "${{ inputs.items }}"
    command: ["true"]
    files: {/in: "${{ item }}"}
    outputs: {same: {type: text, path: /in}}
  - name: gather
    image: far
    command: ["true"]
    files: {/all: "${{ tasks.echo.outputs.same }}"}
    outputs: {all: {type: file, path: /all}}
`
		// Of a text the last line feed is not part, as everywhere in a shell.
		ctx := t.Context()
		up, err := s.client.Upload(ctx, "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		id := s.hand(wire.Submission{Document: wire.Document{Text: doc}, Files: map[string]wire.Upload{"items": up}, Run: wire.SubmitOptions{Pool: "far"}})
		if r := s.wait(id, time.Minute); r.Phase != "succeeded" {
			t.Fatalf("%+v\n%s", r, s.tree(id))
		}
		var all []string
		for _, n := range s.nodes(id) {
			if n.Name != "gather" || n.Kind != "task" {
				continue
			}
			r, err := s.client.Artifact(ctx, id, n.ID, "all")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := json.NewDecoder(r).Decode(&all); err != nil {
				t.Fatal(err)
			}
		}
		if len(all) != len(list) {
			t.Fatalf("%d items came out, %d went in", len(all), len(list))
		}
		for i, item := range list {
			if want := strings.TrimSuffix(item, "\n"); all[i] != want {
				t.Errorf("item %d went in as %.40q and came out as %.40q (%d and %d bytes)", i, item, all[i], len(item), len(all[i]))
			}
		}
	})
	f.stop()
}

// run is `cairn run` with these arguments; it returns the ID of the run.
func (s *server) run(t *testing.T, image string, args ...string) (id string) {
	t.Helper()
	bin, err := cairn()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, append([]string{"run", "--server", s.door.url(), image}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cairn run: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// itemLines are the lines that each item's task printed.
func (s *server) itemLines(t *testing.T, id string) map[int][]string {
	t.Helper()
	out := map[int][]string{}
	for _, l := range s.lines(id, client.LogQuery{}) {
		_, item, _ := strings.Cut(l.Task, ".")
		n, err := strconv.Atoi(item)
		if err != nil {
			t.Fatalf("a line of task %q", l.Task)
		}
		out[n] = append(out[n], l.Text)
	}
	return out
}

// A list of 100 MB is one file to the server: it is neither slow to hand in nor
// in memory, and the first items run long before the last ones are looked at.
func TestLongList(t *testing.T) {
	t.Parallel()
	s := newServer(t, filepath.Join(t.TempDir(), "data"), "work: {pool: \"off\"}\n")
	f := newFarm(t, s, 1)
	const size = 4000 // bytes of an item
	item := func(i int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", size-10)) }
	for _, c := range []struct {
		name                  string
		open, between, closes string
		line                  func(string) string
	}{
		{"lines", "", "\n", "\n", func(s string) string { return s }},
		{"array", "[", ",\n", "]", func(s string) string { return `"` + s + `"` }},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "items")
			n, err := writeList(file, 100<<20, c.open, c.between, c.closes, func(i int) string { return c.line(item(i)) })
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			id := s.run(t, "far", "--pool", "far", "--each", file, "--command", "--", "sh", "-c", "echo ${1%% *} ${#1}", "sh", "{}")
			took := time.Since(begun)
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				r, err := s.client.Run(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if r.Tasks.Succeeded >= 20 {
					if r.Tasks.Total != n {
						t.Errorf("%d items went in, the run has %d", n, r.Tasks.Total)
					}
					break
				}
				if time.Now().After(end) {
					t.Fatalf("after 20 s: %+v\n%s", r, f.workers[0].life.Output())
				}
			}
			if _, err := s.client.Cancel(t.Context(), id, false); err != nil {
				t.Fatal(err)
			}
			if r := s.wait(id, 20*time.Second); r.Phase != "canceled" {
				t.Errorf("%+v", r)
			}
			lines := s.itemLines(t, id)
			for i, got := range lines {
				if want := fmt.Sprintf("%d %d", i, len(item(i))); len(got) != 1 || got[0] != want {
					t.Errorf("item %d printed %q, want %q", i, got, want)
				}
			}
			rss := memory(t, s.life, "VmHWM")
			t.Logf("%d items, handed in within %v; %d had printed when it was canceled; the server's memory was at most %d MiB", n, took.Round(time.Millisecond), len(lines), rss>>20)
			if rss > 256<<20 {
				t.Errorf("the server took %d MiB", rss>>20)
			}
		})
	}
	f.stop()
}

// writeList makes a list of about so many bytes and says how many items it has.
func writeList(file string, size int, open, between, closes string, item func(int) string) (n int, err error) {
	f, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b bytes.Buffer
	b.WriteString(open)
	for written := 0; written < size; n++ {
		if n > 0 {
			b.WriteString(between)
		}
		b.WriteString(item(n))
		written += b.Len()
		if _, err := io.Copy(f, &b); err != nil {
			return n, err
		}
	}
	_, err = f.WriteString(closes)
	return n, err
}

// memory is a line of /proc/PID/status, in bytes.
func memory(t *testing.T, p *program.Process, line string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if w := strings.Fields(l); len(w) == 3 && w[0] == line+":" {
			n, err := strconv.Atoi(w[1])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("the kernel says no %s", line)
	return 0
}
