package document

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func read(t *testing.T, text string) (*Node, *Log) {
	t.Helper()
	log := &Log{}
	docs := Read("f", []byte(text), log)
	if len(docs) != 1 {
		t.Fatalf("%d documents; %v", len(docs), log.Problems())
	}
	return docs[0], log
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "5": 5 * time.Second, "0.5": time.Second / 2, "0": 0,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "soon", "-1s", "-5", "1e30", "99999d", "d", "NaN", "1d-1s", "65535d99999999h"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestNode(t *testing.T) {
	n, log := read(t, "a: 0755\nb: '0755'\nc: {d: [1, x, null, true], e: 1.5}\nf: &f {g: h}\ni: *f\nj: many\nk: null\n")
	if a, b := n.Get("a").Int(0, 1000), n.Get("b").Int(0, 1000); a != 0o755 || b != 755 {
		t.Errorf("a is %d, b is %d", a, b)
	}
	if got := n.Get("c").JSON(); got != `{"d":[1,"x",null,true],"e":1.5}` {
		t.Errorf("c is %s", got)
	}
	if got := n.Get("i").Get("g").Text(); got != "h" {
		t.Errorf("an alias is %q", got)
	}
	if n.Get("k") != nil || n.Get("nothing").Get("at").Get("all").Text() != "" {
		t.Error("what is not there is something")
	}
	if w := n.Get("c").Without("d"); w.JSON() != `{"e":1.5}` || n.Get("c").Get("d") == nil {
		t.Errorf("without d it is %s", w.JSON())
	}
	if log.Len() > 0 {
		t.Fatalf("%v", log.Problems())
	}
	n.Get("j").Int(0, 1)
	n.Get("c").Text()
	n.Get("j").List()
	n.Get("j").Entries()
	n.Get("j").Bool()
	n.Known("a", "b", "c", "f", "i", "jj", "k")
	var got []string
	for _, p := range log.Problems() {
		got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Text))
	}
	want := []string{
		"3:4 this has to be a text", `6:1 unknown field "j"`, `6:4 "many": this has to be a whole number from 0 to 1`,
		"6:4 this has to be a list", "6:4 this has to be a map of names to values", "6:4 this has to be true or false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":       "this is not YAML",
		"a: 1\na: 2": "the key \"a\" is there twice",
		"[a]: 1":     "a key has to be a plain text",
		"a: \"" + strings.Repeat("x", MaxBytes) + "\"":      "the limit is",
		strings.Repeat("[", 200) + strings.Repeat("]", 200): "nested too deep",
	} {
		log := &Log{}
		Read("f", []byte(text), log)
		if ps := log.Problems(); len(ps) != 1 || !strings.Contains(ps[0].Text, want) {
			t.Errorf("%.20q: got %v, want %q", text, ps, want)
		}
	}
}

func TestMeant(t *testing.T) {
	known := []string{"command", "image", "env"}
	for s, want := range map[string]string{"comand": ": did you mean command?", "IMAGE": ": did you mean image?", "something": "", "evn": ": did you mean env?", "x": ""} {
		if got := Meant(s, known); got != want {
			t.Errorf("%s: %q, want %q", s, got, want)
		}
	}
}
