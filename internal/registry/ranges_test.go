package registry

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string][2]int64{
		"0-0":                    {0, 0},
		"0-1023":                 {0, 1023},
		"1024-2047":              {1024, 2047},
		"bytes 0-9/10":           {0, 9},
		"bytes 0-9/*":            {0, 9},
		"0-9223372036854775806":  {0, 1<<63 - 2},
		"00-09":                  {0, 9},
		"":                       {-1, -1},
		"-":                      {-1, -1},
		"0-":                     {-1, -1},
		"-5":                     {-1, -1},
		"5-4":                    {-1, -1},
		"+0-5":                   {-1, -1},
		"0-+5":                   {-1, -1},
		"0--5":                   {-1, -1},
		"0-5-6":                  {-1, -1},
		" 0-5":                   {-1, -1},
		"a-b":                    {-1, -1},
		"bytes=0-5":              {-1, -1},
		"bytes */10":             {-1, -1},
		"0-9223372036854775807":  {-1, -1}, // its length is no int64
		"0-99999999999999999999": {-1, -1},
	} {
		a, b, err := parseContentRange(s)
		switch {
		case want[0] < 0 && err == nil:
			t.Errorf("parseContentRange(%q) = %d, %d; want an error", s, a, b)
		case want[0] >= 0 && (err != nil || a != want[0] || b != want[1]):
			t.Errorf("parseContentRange(%q) = %d, %d, %v; want %v", s, a, b, err, want)
		}
	}
	_, _, err := parseContentRange(strings.Repeat("9", 1000))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("a long header is repeated in full, or taken: %v", err)
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"0-0", "bytes 0-9/10", "5-4", "0--1", "9223372036854775807-9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, b, err := parseContentRange(s)
		if err != nil {
			return
		}
		if a < 0 || b < a || b-a+1 <= 0 {
			t.Fatalf("parseContentRange(%q) = %d, %d", s, a, b)
		}
		a2, b2, err := parseContentRange(fmt.Sprintf("%d-%d", a, b))
		if err != nil || a2 != a || b2 != b {
			t.Fatalf("%q was read as %d-%d, which reads as %d, %d, %v", s, a, b, a2, b2, err)
		}
	})
}

func TestUploadRange(t *testing.T) {
	for size, want := range map[int64]string{0: "0--1", 1: "0-0", 1024: "0-1023"} {
		got := uploadRange(size)
		if got != want {
			t.Errorf("uploadRange(%d) = %q, want %q", size, got, want)
		}
		// What clients do with it: the next chunk begins after the end.
		_, end, _ := strings.Cut(got, "-")
		if n, err := strconv.ParseInt(end, 10, 64); err != nil || n+1 != size {
			t.Errorf("a client reads %q as %d bytes, %v; want %d", got, n+1, err, size)
		}
	}
}

func TestETagMatches(t *testing.T) {
	for header, want := range map[string]bool{
		`"d"`:         true,
		`W/"d"`:       true,
		`"x", "d"`:    true,
		`"x",W/"d" `:  true,
		`*`:           true,
		`d`:           false,
		`"x"`:         false,
		``:            false,
		`"d`:          false,
		`"`:           false,
		`"","dd",d"d`: false,
	} {
		if got := etagMatches(header, "d"); got != want {
			t.Errorf("etagMatches(%q) = %v, want %v", header, got, want)
		}
	}
}

func FuzzETagMatches(f *testing.F) {
	f.Add(`"x", W/"d"`, "d")
	f.Add(`"`, "")
	f.Fuzz(func(t *testing.T, header, d string) {
		if etagMatches(header, d) && header == "" {
			t.Fatal("an empty header matched")
		}
	})
}
