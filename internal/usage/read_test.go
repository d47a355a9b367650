package usage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestReadStatement(t *testing.T) {
	body := fmt.Sprintf(`{"reporter": "host-a", "period": "60s", "complete": true,
 "sources": ["container", "workload"], "statement": "a1", "part": 1, "parts": 2,
 "uses": [{"digest": %q, "repository": "app/web", "source": "container", "subject": "host-a/web", "at": "2026-11-22T22:00:00Z"},
  {"source": "workload", "digest": %q}]}`, dg("a"), dg("b"))
	want := Statement{
		Reporter: "host-a", Period: time.Minute, Complete: true, Sources: []Source{Container, Workload}, Statement: "a1", Part: 1, Parts: 2,
		Uses: []Use{
			{Digest: dg("a"), Repository: "app/web", Source: Container, Subject: "host-a/web", At: time.Date(2026, 11, 22, 22, 0, 0, 0, time.UTC)},
			{Digest: dg("b"), Source: Workload},
		},
	}
	got, err := ReadStatement(strings.NewReader(body), 0)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v, %v\nwant %+v", got, err, want)
	}

	// What is written is read back.
	for _, s := range []Statement{want, {}, {Reporter: "x", Period: 90 * time.Minute, SameAs: "a1"}} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadStatement(bytes.NewReader(b), 0)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s is read as %+v, %v", b, got, err)
		}
		var again Statement
		if err := json.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%s is unmarshalled as %+v, %v", b, again, err)
		}
	}
}

func TestReadStatementBad(t *testing.T) {
	use := func(s string) string { return fmt.Sprintf(`{"uses": [{"digest": %q}, {%s}]}`, dg("a"), s) }
	tests := []struct{ body, want string }{
		{``, "the JSON ends in the middle"},
		{`{`, "the JSON ends in the middle"},
		{`{"uses": [`, "uses: the JSON ends in the middle"},
		{`[]`, "must be an object, not an array"},
		{`null`, "must be an object, not null"},
		{`{} {}`, "something follows it"},
		{`{} x`, "not valid JSON"},
		{`{"reporter" "x"}`, "not valid JSON"},
		{`{"repoter": "x"}`, `unknown key "repoter"; did you mean "reporter"?`},
		{`{"Period": "60s"}`, `unknown key "Period"; did you mean "period"?`},
		{`{"same-as": "x"}`, `unknown key "same-as"; did you mean "same_as"?`},
		{`{"part": 1, "part": 1}`, "part: the key appears twice"},
		{`{"reporter": 3}`, "reporter: must be a string, not a number"},
		{`{"reporter": null}`, "reporter: must be a string, not null"},
		{`{"period": 60}`, "period: must be a string, not a number"},
		{`{"period": "soon"}`, `period: "soon" is not a time such as "60s"`},
		{`{"period": "-5s"}`, `period: "-5s" is not a time such as "60s"`},
		{`{"complete": "true"}`, "complete: must be true or false, not a string"},
		{`{"sources": "container"}`, "sources: must be an array, not a string"},
		{`{"sources": ["container", "pod"]}`, `sources[1]: unknown source "pod"`},
		{`{"sources": ["run","run","run","run","run","run","run","run","run"]}`, "sources: there are more than there are kinds"},
		{`{"part": 1.5}`, "part: 1.5 is not a whole number in range"},
		{`{"parts": -1}`, "parts: -1 is not a whole number in range"},
		{`{"parts": 1e99}`, "parts: 1e99 is not a whole number in range"},
		{`{"parts": "1"}`, "parts: must be a number, not a string"},
		{`{"uses": {}}`, "uses: must be an array, not an object"},
		{`{"uses": [[]]}`, "uses[0]: must be an object, not an array"},
		{use(`"digest": 5`), "uses[1].digest: must be a string, not a number"},
		{use(`"digst": "x"`), `uses[1]: unknown key "digst"; did you mean "digest"?`},
		{use(`"now": true`), `uses[1]: unknown key "now"`},
		{use(`"source": "sauce"`), `uses[1].source: unknown source "sauce"`},
		{use(`"subject": ["x"]`), "uses[1].subject: must be a string, not an array"},
		{use(`"at": "yesterday"`), `uses[1].at: "yesterday" is not a time such as`},
		{use(`"at": "x", "at": "x"`), `uses[1].at: "x" is not a time`},
		{use(`"source": "run", "source": "run"`), "uses[1].source: the key appears twice"},
	}
	for _, tt := range tests {
		_, err := ReadStatement(strings.NewReader(tt.body), 0)
		var b *BadStatementError
		if !errors.As(err, &b) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\n got %v\nwant a BadStatementError with %q", tt.body, err, tt.want)
		}
	}
}

func TestReadStatementLimits(t *testing.T) {
	body := `{"reporter": "` + strings.Repeat("x", 1000) + `"}`
	if _, err := ReadStatement(strings.NewReader(body), int64(len(body))); err != nil {
		t.Errorf("a statement of just the limit: %v", err)
	}
	if _, err := ReadStatement(strings.NewReader(body), int64(len(body))-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a statement one byte above the limit: %v, want ErrTooLarge", err)
	}
	// It is not read to its end.
	endless := io.MultiReader(strings.NewReader(`{"reporter": "`), endlessX{})
	if _, err := ReadStatement(endless, 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an endless statement: %v, want ErrTooLarge", err)
	}
	many := `{"uses": [` + strings.Repeat(`{},`, MaxUses) + `{}]}`
	if _, err := ReadStatement(strings.NewReader(many), 0); err == nil || !strings.Contains(err.Error(), "more than 100000") {
		t.Errorf("too many uses: %v", err)
	}
	broken := errors.New("connection reset")
	_, err := ReadStatement(io.MultiReader(strings.NewReader(`{"uses": [`), iotest.ErrReader(broken)), 0)
	var b *BadStatementError
	if !errors.Is(err, broken) || errors.As(err, &b) {
		t.Errorf("a broken connection: %v, want it wrapped and not blamed on the statement", err)
	}
}

type endlessX struct{}

func (endlessX) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func FuzzReadStatement(f *testing.F) {
	f.Add([]byte(`{"reporter": "host-a", "period": "60s", "complete": true, "sources": ["container"], "statement": "a1", "part": 1, "parts": 1,
 "uses": [{"digest": "sha256:00", "repository": "app/web", "source": "container", "subject": "host-a/web", "at": "2026-11-22T22:00:00Z"}]}`))
	f.Add([]byte(`{"same_as": "a1", "period": "1h2m"}`))
	f.Add([]byte(`{"uses": [{"at": "0001-01-01T00:00:00Z"}, {"at": "9999-12-31T23:59:59.999999999+23:59"}]}`))
	f.Add([]byte(`{"usess": [[[[{`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := ReadStatement(bytes.NewReader(body), 1<<16)
		if err != nil {
			var b *BadStatementError
			if !errors.As(err, &b) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error of no known kind: %v", err)
			}
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Fatalf("a message that is not one line: %q", err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("accepted what is not JSON: %q", body)
		}
		// Written and read again it says the same.
		b, err := json.Marshal(s)
		if err != nil {
			for _, u := range s.Uses { // years json cannot write; no source
				if y := u.At.Year(); y < 0 || y > 9999 || u.Source == 0 {
					return
				}
			}
			t.Fatalf("%+v cannot be written: %v", s, err)
		}
		again, err := ReadStatement(bytes.NewReader(b), 0)
		for _, u := range s.Uses {
			if u.Source == 0 { // has no name
				return
			}
		}
		if err != nil || len(again.Uses) != len(s.Uses) || again.Period != s.Period || again.Statement != s.Statement {
			t.Fatalf("%q became %q: %v", body, b, err)
		}
	})
}
