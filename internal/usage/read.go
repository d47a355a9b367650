package usage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"cairn.dev/cairn/internal/image"
)

// ErrTooLarge: the statement has more bytes than allowed (413).
var ErrTooLarge = errors.New("statement is too large; send it in parts (statement, part, parts)")

// ReadStatement reads one statement as JSON. It is strict: unknown and repeated
// keys, null, wrong types and anything after the statement are refused, with a
// [BadStatementError] that says where. It reads at most limit bytes (at most
// and by default [MaxBody]) and fails with [ErrTooLarge] beyond. Whether the
// statement makes sense is for [Ledger.Report] to say. Errors of r itself are
// returned wrapped.
func ReadStatement(r io.Reader, limit int64) (Statement, error) {
	if limit <= 0 || limit > MaxBody {
		limit = MaxBody
	}
	in := &limited{r: r, left: limit}
	p := &parser{dec: json.NewDecoder(in), in: in}
	p.dec.UseNumber()
	var s Statement
	err := p.statement(&s)
	switch {
	case in.over:
		return Statement{}, fmt.Errorf("%w: the limit is %d bytes", ErrTooLarge, limit)
	case err != nil:
		return Statement{}, err
	}
	return s, nil
}

// limited ends with an error where the limit is passed, unlike io.LimitReader,
// which ends as if the input did. It also makes one space of many between
// tokens: the decoder looks at all of them again with each read, so that
// megabytes of nothing, which compress well, would cost it minutes.
type limited struct {
	r    io.Reader
	left int64
	over bool
	err  error // of r, other than io.EOF

	inString, escaped, space bool
}

// squeeze removes repeated white space outside of strings, in place.
func (l *limited) squeeze(b []byte) int {
	n := 0
	for _, c := range b {
		if l.inString {
			switch {
			case l.escaped:
				l.escaped = false
			case c == '\\':
				l.escaped = true
			case c == '"':
				l.inString = false
			}
		} else {
			space := c == ' ' || c == '\n' || c == '\r' || c == '\t'
			if space && l.space {
				continue
			}
			l.space, l.inString = space, c == '"'
		}
		b[n] = c
		n++
	}
	return n
}

func (l *limited) Read(b []byte) (int, error) {
	for {
		n, err := l.read(b)
		if n = l.squeeze(b[:n]); n > 0 || err != nil {
			return n, err
		}
	}
}

func (l *limited) read(b []byte) (int, error) {
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	if int64(n) > l.left {
		l.over = true
		return int(l.left), ErrTooLarge
	}
	l.left -= int64(n)
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

type parser struct {
	dec *json.Decoder
	in  *limited
}

var (
	statementKeys = []string{"reporter", "period", "complete", "sources", "statement", "part", "parts", "same_as", "platforms", "uses"}
	platformKeys  = []string{"os", "architecture", "count"}
	useKeys       = []string{"digest", "repository", "source", "subject", "at", "nodes"}
)

func (p *parser) statement(s *Statement) error {
	err := p.object("", statementKeys, func(key int) (err error) {
		switch statementKeys[key] {
		case "reporter":
			s.Reporter, err = p.text("reporter")
		case "period":
			var v string
			if v, err = p.text("period"); err == nil {
				if s.Period, err = time.ParseDuration(v); err != nil || s.Period <= 0 {
					err = bad("period", "%q is not a time such as \"60s\"", head(v))
				}
			}
		case "complete":
			s.Complete, err = p.boolean("complete")
		case "sources":
			err = p.array("sources", func(i int) error {
				if i >= len(sourceNames) {
					return bad("sources", "there are more than there are kinds")
				}
				path := fmt.Sprintf("sources[%d]", i)
				src, err := p.source(path)
				s.Sources = append(s.Sources, src)
				return err
			})
		case "statement":
			s.Statement, err = p.text("statement")
		case "part":
			s.Part, err = p.number("part")
		case "parts":
			s.Parts, err = p.number("parts")
		case "same_as":
			s.SameAs, err = p.text("same_as")
		case "platforms":
			err = p.array("platforms", func(i int) error {
				if i >= maxPlatforms {
					return bad("platforms", "there are more than %d", maxPlatforms)
				}
				pl, err := p.platform(fmt.Sprintf("platforms[%d]", i))
				s.Platforms = append(s.Platforms, pl)
				return err
			})
		case "uses":
			err = p.array("uses", func(i int) error {
				if i >= MaxUses {
					return bad("uses", "there are more than %d; send the statement in parts (statement, part, parts)", MaxUses)
				}
				u, err := p.use()
				var b *BadStatementError
				if errors.As(err, &b) { // the path is made only when needed
					b.Path = strings.TrimSuffix(fmt.Sprintf("uses[%d].%s", i, b.Path), ".")
				}
				s.Uses = append(s.Uses, u)
				return err
			})
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, err := p.dec.Token(); err != io.EOF {
		if err != nil {
			return p.broken("", err)
		}
		return bad("", "something follows it")
	}
	return nil
}

func (p *parser) platform(path string) (pl Platform, err error) {
	err = p.object(path, platformKeys, func(key int) (err error) {
		at := path + "." + platformKeys[key]
		switch platformKeys[key] {
		case "os":
			pl.OS, err = p.text(at)
		case "architecture":
			pl.Architecture, err = p.text(at)
		case "count":
			pl.Count, err = p.number(at)
		}
		return err
	})
	return pl, err
}

func (p *parser) use() (u Use, err error) {
	err = p.object("", useKeys, func(key int) (err error) {
		var v string
		switch useKeys[key] {
		case "digest":
			v, err = p.text("digest")
			u.Digest = image.Digest(v)
		case "repository":
			u.Repository, err = p.text("repository")
		case "source":
			u.Source, err = p.source("source")
		case "subject":
			u.Subject, err = p.text("subject")
		case "at":
			if v, err = p.text("at"); err == nil {
				if u.At, err = time.Parse(time.RFC3339, v); err != nil {
					err = bad("at", "%q is not a time such as 2026-11-22T22:00:00Z", head(v))
				}
			}
		case "nodes":
			u.Nodes, err = p.number("nodes")
		}
		return err
	})
	return u, err
}

// object reads {…} and calls value with the number of each key in keys.
func (p *parser) object(path string, keys []string, value func(key int) error) error {
	if err := p.delim(path, '{', "an object"); err != nil {
		return err
	}
	var seen uint
	for p.dec.More() {
		t, err := p.dec.Token()
		if err != nil {
			return p.broken(path, err)
		}
		name, _ := t.(string)
		key := -1
		for i, k := range keys {
			if k == name {
				key = i
			}
		}
		switch {
		case key < 0:
			return bad(join(path, ""), "unknown key %q; did you mean %q?", head(name), nearest(name, keys))
		case seen&(1<<key) != 0:
			return bad(join(path, name), "the key appears twice")
		}
		seen |= 1 << key
		if err := value(key); err != nil {
			return err
		}
	}
	if _, err := p.dec.Token(); err != nil {
		return p.broken(path, err)
	}
	return nil
}

func join(path, key string) string {
	if path == "" || key == "" {
		return path + key
	}
	return path + "." + key
}

func (p *parser) array(path string, value func(i int) error) error {
	if err := p.delim(path, '[', "an array"); err != nil {
		return err
	}
	for i := 0; p.dec.More(); i++ {
		if err := value(i); err != nil {
			return err
		}
	}
	if _, err := p.dec.Token(); err != nil {
		return p.broken(path, err)
	}
	return nil
}

func (p *parser) delim(path string, want json.Delim, what string) error {
	t, err := p.dec.Token()
	if err != nil {
		return p.broken(path, err)
	}
	if t != want {
		return bad(path, "must be %s, not %s", what, kind(t))
	}
	return nil
}

func (p *parser) text(path string) (string, error) {
	t, err := p.dec.Token()
	if err != nil {
		return "", p.broken(path, err)
	}
	s, ok := t.(string)
	if !ok {
		return "", bad(path, "must be a string, not %s", kind(t))
	}
	return s, nil
}

func (p *parser) boolean(path string) (bool, error) {
	t, err := p.dec.Token()
	if err != nil {
		return false, p.broken(path, err)
	}
	b, ok := t.(bool)
	if !ok {
		return false, bad(path, "must be true or false, not %s", kind(t))
	}
	return b, nil
}

func (p *parser) number(path string) (int, error) {
	t, err := p.dec.Token()
	if err != nil {
		return 0, p.broken(path, err)
	}
	n, ok := t.(json.Number)
	if !ok {
		return 0, bad(path, "must be a number, not %s", kind(t))
	}
	v, err := n.Int64()
	if err != nil || v < 0 || v > math.MaxInt32 {
		return 0, bad(path, "%s is not a whole number in range", head(n.String()))
	}
	return int(v), nil
}

func (p *parser) source(path string) (Source, error) {
	v, err := p.text(path)
	if err != nil {
		return 0, err
	}
	src, err := ParseSource(v)
	if err != nil {
		return 0, bad(path, "unknown source %q; use container, workload, pull, code or run", head(v))
	}
	return src, nil
}

// broken is the error for input that is not JSON, or that ended early.
func (p *parser) broken(path string, err error) error {
	switch {
	case p.in.err != nil:
		return fmt.Errorf("read statement: %w", p.in.err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return bad(path, "the JSON ends in the middle")
	}
	return bad(path, "not valid JSON: %v", err)
}

// kind names what a token is, for messages.
func kind(t json.Token) string {
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return "an object"
		}
		return "an array"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	}
	return "null"
}

// head is the start of a value that came from outside, for messages.
func head(s string) string {
	const limit = 60
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// nearest is the key that takes the fewest edits to get from s.
func nearest(s string, keys []string) string {
	if len(s) > 40 {
		s = s[:40]
	}
	best, found := math.MaxInt, ""
	for _, k := range keys {
		if d := edits(strings.ToLower(s), k); d < best {
			best, found = d, k
		}
	}
	return found
}

// edits is the number of bytes to insert, remove or change between a and b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
