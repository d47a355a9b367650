package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

// TestDoor brings frames the way workers do.
func TestDoor(t *testing.T) {
	r := newRig(t, Config{Limit: 1 << 20})
	held := map[string]bool{"1": true, "2": true}
	srv := httptest.NewServer(r.Handler(func(l task.Ref) bool { return held[l.Task] && l.Token == "t" }, func(q *http.Request) (int, error) {
		if q.Header.Get("Authorization") != "Bearer secret" {
			return http.StatusUnauthorized, errors.New("who are you?")
		}
		return 0, nil
	}))
	defer srv.Close()
	w, err := worker.NewHTTP(srv.URL, func() (string, error) { return "secret", nil })
	must(t, err)
	var body []byte
	offset := 0
	var want []string
	for i := range 100 { // several chunks
		text := fmt.Sprintf("%03d %s\n", i, strings.Repeat("y", 9_000))
		body = task.AppendFrame(body, frame("r", "1", 0, offset, text))
		body = task.AppendFrame(body, frame("r", "3", 0, offset, text)) // whose lease is not held
		want = append(want, "1/1:"+strings.TrimSuffix(text, "\n"))
		offset += len(text)
	}
	for range 2 { // the answer may be lost
		got, err := w.Logs(t.Context(), body)
		must(t, err)
		if len(got.Refused) != 1 || got.Refused[0].Task != "3" || len(got.Full) != 0 {
			t.Errorf("%+v", got)
		}
	}
	equal(t, "what came", r.read(Query{Run: "r"}), want)
	got, err := w.Logs(t.Context(), task.AppendFrame(task.AppendFrame(nil, frame("r", "2", 0, 0, "x\n")), frame("r", "1", 0, 1<<20, "y\n")))
	must(t, err)
	if len(got.Full) != 1 || got.Full[0].Task != "1" || got.Full[0].Token != "t" || len(got.Refused) != 0 {
		t.Errorf("%+v", got)
	}
	if n := r.intake.left; n != maxIntake {
		t.Errorf("%d bytes of the budget are left, of %d", n, maxIntake)
	}
	for _, c := range []struct {
		name, secret string
		body         io.Reader
		status       int
	}{
		{"nothing", "secret", http.NoBody, 200},
		{"no secret", "", http.NoBody, 401},
		{"garbage", "secret", strings.NewReader("\xff\xff\xff\xff\xff\xff\xff"), 400},
		{"cut off", "secret", bytes.NewReader(body[:len(body)-1]), 400},
		{"too much", "secret", bytes.NewReader(bytes.Repeat(task.AppendFrame(nil, frame("r", "3", 0, 0, strings.Repeat("x", task.MaxFrame))), maxBody/task.MaxFrame)), 413},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+task.PathLogs, c.body)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+c.secret)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s %s, want %d", c.name, resp.Status, text, c.status)
		}
	}
	must(t, r.Close())
	if _, err := w.Logs(t.Context(), body); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after the end: %v", err)
	}
	r.open()
}

// TestDoorBudget: where requests together hold too much, each goes on with a
// frame at a time.
func TestDoorBudget(t *testing.T) {
	r := newRig(t, Config{})
	r.intake.left = 0
	var body []byte
	var want []string
	for i := range 20 {
		body = task.AppendFrame(body, frame("r", "1", 0, 3*i, fmt.Sprintf("%02d\n", i)))
		want = append(want, fmt.Sprintf("1/1:%02d", i))
	}
	rec := httptest.NewRecorder()
	r.Handler(func(task.Ref) bool { return true }, nil).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, task.PathLogs, bytes.NewReader(body)))
	if rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	equal(t, "what came", r.read(Query{Run: "r"}), want)
	if r.intake.left != 0 {
		t.Errorf("the budget has %d, and had nothing", r.intake.left)
	}
}

func TestLiteral(t *testing.T) {
	for expr, want := range map[string]string{
		"error":               "error",
		"^error: .*timeouts$": "timeouts",
		"(disk) full|other":   "",
		"a(bcd)+e":            "bcd",
		"(?i)error":           "",
		"x*":                  "",
		"[0-9]+ of":           " of",
		"(abc){2,3}":          "abc",
		"":                    "",
	} {
		re, err := Pattern(expr)
		must(t, err)
		if got := string(literal(re)); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// FuzzLiteral: what is in each match is in each match.
func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"error", "a(b|c)d", "^x+y?z{2,}$", "(?i)ab", `\Qa.b\E`, "(?s).", `\bword\b`} {
		f.Add(s, "error abd xyzz word a.b")
	}
	f.Fuzz(func(t *testing.T, expr, line string) {
		re, err := Pattern(expr)
		if err != nil {
			return
		}
		if l := literal(re); re.MatchString(line) && !strings.Contains(line, string(l)) {
			t.Errorf("%q matches %q, which does not hold %q", expr, line, l)
		}
	})
}

// FuzzSection reads what may be in a file of the journal.
func FuzzSection(f *testing.F) {
	b := openSection(nil, "run")
	b = appendRecord(b, &record{task: "1.2", attempt: 1, stream: task.Stdout, offset: 3, at: 5, text: []byte("text\n")})
	b = appendRecord(b, &record{task: "1.2", attempt: 1, stream: task.Stderr, offset: 8, at: 6, cut: 9})
	closeSection(b, 0)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readSection(bytes.NewReader(b), nil)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v is not ErrDamaged", err)
			}
			// What a checksum would keep out is read as well.
			if len(b) > sectionHead {
				_, _ = parseSection(b[sectionHead:], 0, nil)
			}
			return
		}
		var records []record
		run, err := parseSection(got[sectionHead:], 0, func(r record) { records = append(records, r) })
		if err != nil {
			return
		}
		again := openSection(nil, run)
		for i := range records {
			again = appendRecord(again, &records[i])
		}
		closeSection(again, 0)
		var same []record
		if _, err := parseSection(again[sectionHead:], 0, func(r record) { same = append(same, r) }); err != nil || len(same) != len(records) {
			t.Errorf("written again it has %d records, not %d: %v", len(same), len(records), err)
		}
	})
}

// FuzzSegment reads what may be in a blob, and what may be in a directory.
func FuzzSegment(f *testing.F) {
	s := codec(f)
	rs := []record{
		{task: "1.2", attempt: 1, stream: task.Stdout, offset: 3, at: 5, pos: 7, text: []byte("text\n")},
		{task: "1.2", attempt: 1, stream: task.Stderr, offset: 8, at: 6, pos: 70, cut: 9},
		{task: "1.3", attempt: 2, stream: task.Stderr, offset: 0, at: 6, pos: 70, text: []byte("more")},
	}
	whole := s.encode(slices.Clone(rs))
	f.Add(whole)
	g, err := s.open(bytes.NewReader(whole))
	must(f, err)
	f.Add(whole[:g.blocks[len(g.blocks)-1]])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		if g, err := s.open(bytes.NewReader(b)); err == nil {
			_, _ = s.load(g, func(*record) bool { return true })
		} else if !errors.Is(err, ErrDamaged) {
			t.Errorf("%v is not ErrDamaged", err)
		}
		var g segment
		if g.parse(b, 0) && len(g.records) > maxRecords {
			t.Errorf("%d records", len(g.records))
		}
	})
}

// codec is a store that can do nothing but read and write segments.
func codec(t testing.TB) *Store {
	t.Helper()
	s := &Store{}
	must(t, s.openCodec())
	return s
}

// TestSegmentCodec writes and reads records of all sizes.
func TestSegmentCodec(t *testing.T) {
	s := codec(t)
	var rs []record
	for i := range 50 {
		offset := int64(0)
		for k := range 30 {
			r := record{task: fmt.Sprintf("%d.%d", i%3, i), attempt: 1 + i%2, stream: byte(1 + k%2), offset: offset, at: int64(1000*i - 7*k), pos: int64(100*i + k)}
			r.text = bytes.Repeat([]byte{byte(i), byte(k), '\n'}, (i*k*k*17)%2000)
			if k == 29 {
				r.cut = 12345
			}
			offset = r.end() + int64(k%4)
			rs = append(rs, r)
		}
	}
	rs = sortRecords(rs)
	b := s.encode(rs)
	for _, name := range []string{"", "1.4", "2.5"} {
		g, err := s.open(bytes.NewReader(b))
		must(t, err)
		got, err := s.load(g, func(r *record) bool { return name == "" || r.task == name })
		must(t, err)
		i := 0
		for _, want := range rs {
			if name != "" && want.task != name {
				continue
			}
			r := got[i]
			i++
			if !bytes.Equal(r.text, want.text) {
				t.Fatalf("%s at %d: another text", want.task, want.offset)
			}
			r.text, want.text = nil, nil
			if fmt.Sprint(r) != fmt.Sprint(want) {
				t.Fatalf("got %v, want %v", r, want)
			}
		}
		if i != len(got) {
			t.Errorf("%d records, want %d", len(got), i)
		}
	}
	for at := range b { // whatever bit is broken is found
		if at%97 != 0 && at < len(b)-200 {
			continue
		}
		broken := slices.Clone(b)
		broken[at] ^= 4
		g, err := s.open(bytes.NewReader(broken))
		if err == nil {
			_, err = s.load(g, func(*record) bool { return true })
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d of %d: %v, want ErrDamaged", at, len(b), err)
		}
	}
}
