package usage

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// White space costs what its bytes cost and means nothing; inside a string it
// stays.
func TestWhiteSpace(t *testing.T) {
	const d = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
	blank := strings.Repeat(" \n\t\r", 1<<20) // minutes, if it were looked at again and again
	in := `{` + blank + `"uses": [` + blank + `{"digest": "` + d + `", "source": "container", "subject": "a  \"  b"}` + blank + `]` + blank + `}` + blank
	s, err := ReadStatement(strings.NewReader(in), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Uses) != 1 || s.Uses[0].Subject != `a  "  b` {
		t.Errorf("read %+v", s.Uses)
	}
	for _, bad := range []string{`{"complete": tr ue}`, `{"part": 1  2}`} {
		if _, err := ReadStatement(strings.NewReader(bad), 0); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestSqueeze(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"   ":                  " ",
		`{ "a  b" :  1,  2 }`:  `{ "a  b" : 1, 2 }`,
		`"a\"  b"  "c\\"  "d"`: `"a\"  b" "c\\" "d"`,
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "by bytes": iotest.OneByteReader(strings.NewReader(in))} {
			got, err := io.ReadAll(&limited{r: r, left: 100})
			if err != nil || string(got) != want {
				t.Errorf("%s, %s: %q, %v; want %q", in, name, got, err, want)
			}
		}
	}
}
