package work

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

func listOf(t testing.TB, form, text string) (*lists, string) {
	t.Helper()
	b := &worktest.Blobs{}
	digest, _, err := b.Put(context.Background(), "", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return newLists(b), form + ":" + digest
}

func TestLists(t *testing.T) {
	for name, c := range map[string]struct {
		form, text string
		want       []any
		wrong      string
	}{
		"lines":            {form: formLines, text: "a\nb c\n\n  \nd", want: []any{"a", "b c", "d"}},
		"carriage return":  {form: formLines, text: "a\r\nb\r\n", want: []any{"a", "b"}},
		"no lines":         {form: formLines, text: "\n\n", want: nil},
		"anything":         {form: formJSON, text: ` [1, "a,]\"[", {"k": [1, {"x": "}"}]}, null , true] `, want: []any{1.0, `a,]"[`, map[string]any{"k": []any{1.0, map[string]any{"x": "}"}}}, nil, true}},
		"emoji and NUL":    {form: formJSON, text: `["\u0000","👩‍🚀","\n'\""]`, want: []any{"\x00", "👩‍🚀", "\n'\""}},
		"empty":            {form: formJSON, text: "[ ]", want: nil},
		"no end":           {form: formJSON, text: "[1, 2", wrong: "has no end"},
		"no array":         {form: formJSON, text: `{"a": 1}`, wrong: "is a JSON array"},
		"a hole":           {form: formJSON, text: "[1,,2]", wrong: "item 2 of the JSON array is missing"},
		"a comma too many": {form: formJSON, text: "[1,]", wrong: "item 2 of the JSON array is missing"},
		"a file of ours":   {form: formFiles, text: `[{"\u0000file":{"digest":"d"}}]`, want: []any{&workflow.File{Digest: "d"}}},
		"not of ours":      {form: formJSON, text: `[{"\u0000file":{"digest":"d"}}]`, want: []any{map[string]any{marker: map[string]any{"digest": "d"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			l, ref := listOf(t, c.form, c.text)
			x, err := l.index(t.Context(), ref)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("%v, want %q", err, c.wrong)
				}
				return
			}
			if err != nil || x.n != len(c.want) {
				t.Fatalf("%d items, %v, want %d", x.n, err, len(c.want))
			}
			got, err := l.span(t.Context(), ref, 0, uint32(x.n))
			if err != nil || len(got) != len(c.want) || len(got) > 0 && !reflect.DeepEqual(got, c.want) {
				t.Errorf("%#v %v", got, err)
			}
		})
	}
}

// Items of a long list are found without reading all of it.
func TestLongLists(t *testing.T) {
	const n = 10*pageSize + 17
	var items, lines []string
	for i := range n {
		items = append(items, fmt.Sprintf(`{"i": %d}`, i))
		lines = append(lines, fmt.Sprint("line ", i))
	}
	for form, text := range map[string]string{formJSON: "[" + strings.Join(items, ",\n") + "]", formLines: strings.Join(lines, "\n")} {
		l, ref := listOf(t, form, text)
		for _, i := range []uint32{0, 1, pageSize - 1, pageSize, n - 1, 5} {
			v, err := l.item(t.Context(), ref, i)
			want := any(fmt.Sprint("line ", i))
			if form == formJSON {
				want = map[string]any{"i": float64(i)}
			}
			if err != nil || !reflect.DeepEqual(v, want) {
				t.Errorf("%s: item %d is %v (%v)", form, i, v, err)
			}
		}
		if _, err := l.item(t.Context(), ref, n); err == nil {
			t.Errorf("%s: there is an item behind the last", form)
		}
	}
}

// slowBlobs opens nothing before it is let, or whoever asks has gone.
type slowBlobs struct {
	Blobs
	let    chan struct{}
	opened atomic.Int64
}

func (b *slowBlobs) Open(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	b.opened.Add(1)
	select {
	case <-b.let:
		return b.Blobs.Open(ctx, digest)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A page that many want at once is read once, and is there for all even if the
// first of them has gone.
func TestPageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ref := listOf(t, formLines, "a\nb")
		if _, err := l.index(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		b := &slowBlobs{Blobs: l.blobs, let: make(chan struct{})}
		l.blobs = b
		first, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		ask := func(ctx context.Context) {
			wg.Go(func() {
				if v, err := l.item(ctx, ref, 1); err != nil || v != "b" {
					t.Errorf("%v (%v)", v, err)
				}
			})
		}
		ask(first)
		synctest.Wait()
		for range 20 {
			ask(t.Context())
		}
		synctest.Wait()
		leave()
		close(b.let)
		wg.Wait()
		if n := b.opened.Load(); n != 1 {
			t.Errorf("the list was opened %d times", n)
		}
	})
}

// A page that could not be read is read again.
func TestPageAgain(t *testing.T) {
	l, ref := listOf(t, formLines, "a\nb")
	if _, err := l.index(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	good := l.blobs
	l.blobs = &worktest.Blobs{}
	if v, err := l.item(t.Context(), ref, 1); err == nil {
		t.Fatalf("%v of a list that is gone", v)
	}
	l.blobs = good
	if v, err := l.item(t.Context(), ref, 1); err != nil || v != "b" {
		t.Errorf("%v (%v)", v, err)
	}
}

// Whatever a file says, its list is what JSON says it is.
func FuzzLists(f *testing.F) {
	f.Add(`[1,"a",{"b":[]}]`)
	f.Add("[]")
	f.Add(`["\\"]`)
	f.Fuzz(func(t *testing.T, text string) {
		l, ref := listOf(t, formJSON, text)
		x, err := l.index(t.Context(), ref)
		var want []any
		if json.Unmarshal([]byte(text), &want) != nil || !strings.HasPrefix(strings.TrimSpace(text), "[") {
			return // it may be found out only when an item is read
		}
		if err != nil || x.n != len(want) {
			t.Fatalf("%d items (%v), JSON has %d", x.n, err, len(want))
		}
		got, err := l.span(t.Context(), ref, 0, uint32(x.n))
		if err != nil || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%#v (%v), want %#v", got, err, want)
		}
	})
}
