package task

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

func frames() []Frame {
	ref := Ref{Run: "r1", Task: "map(3:é)", Attempt: 2, Token: "t"}
	at := time.Date(2026, 11, 23, 1, 2, 3, 4e6, time.UTC)
	return []Frame{
		{Ref: ref, Stream: Stdout, At: at, Bytes: []byte("one\ntwo\n")},
		{Ref: ref, Stream: Stderr, Offset: 8, At: at, Bytes: []byte{0, 0xff}},
		{Ref: ref, Stream: Stdout, Offset: 10, At: at, Bytes: []byte{}},
	}
}

func TestFrames(t *testing.T) {
	var b []byte
	for _, f := range frames() {
		b = AppendFrame(b, f)
	}
	r := bufio.NewReader(bytes.NewReader(b))
	for _, want := range frames() {
		got, err := ReadFrame(r)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("read %+v, %v, want %+v", got, err, want)
		}
	}
	if _, err := ReadFrame(r); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
	first := len(AppendFrame(nil, frames()[0]))
	for n := 1; n < first; n++ {
		if _, err := ReadFrame(bufio.NewReader(bytes.NewReader(b[:n]))); !errors.Is(err, ErrFrame) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestFrameBounds(t *testing.T) {
	long := frames()[0]
	long.Bytes = make([]byte, MaxFrame+1)
	named := frames()[0]
	named.Task = strings.Repeat("x", maxName+1)
	stream := frames()[0]
	stream.Stream = 3
	for name, f := range map[string]Frame{"too long": long, "name too long": named, "no such stream": stream} {
		if _, err := ReadFrame(bufio.NewReader(bytes.NewReader(AppendFrame(nil, f)))); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, fr := range frames() {
		f.Add(AppendFrame(nil, fr))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := ReadFrame(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		again, err := ReadFrame(bufio.NewReader(bytes.NewReader(AppendFrame(nil, fr))))
		if err != nil || !reflect.DeepEqual(again, fr) {
			t.Errorf("%+v became %+v, %v", fr, again, err)
		}
	})
}

func TestLeaseHeader(t *testing.T) {
	want := frames()[0].Ref
	got, err := ParseLease(want.Header())
	if err != nil || got != want {
		t.Errorf("read %+v, %v", got, err)
	}
	for _, s := range []string{"", "!", "e30", Ref{Run: "r"}.Header(), strings.Repeat("A", 1<<20)} {
		if got, err := ParseLease(s); err == nil {
			t.Errorf("%.20q was read as %+v", s, got)
		}
	}
}
