package logs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"cairn.dev/cairn/internal/task"
)

// The journal is files of sections, one after the other. A section holds
// records of one run, and is
//
//	length of the rest, checksum of the rest (four bytes each, little endian)
//	run, then records until its end
//
// A position is a byte of the journal as a whole, as if it had never been cut
// off at the front: a file is named by the position at which it begins.

const (
	// fileBytes is at what size the next file is begun, unless the journal is
	// to be small: what has been packed is removed by the file.
	fileBytes = 16 << 20
	// sectionBytes is about what one section holds at most; followers read by
	// the section.
	sectionBytes = 256 << 10
	maxSection   = sectionBytes + task.MaxFrame + 32<<10
	sectionHead  = 8
	fileSuffix   = ".frames"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A record is a frame as it is kept.
type record struct {
	task    string
	attempt int
	stream  byte
	offset  int64 // of its bytes in what the attempt printed
	at      int64 // milliseconds since 1970
	pos     int64 // of the section it came with
	cut     int64 // bytes after text that were not kept
	text    []byte
}

// end is the offset behind r.
func (r *record) end() int64 { return r.offset + int64(len(r.text)) + r.cut }

// file is one of the journal. Store.mu guards all but f.
type file struct {
	f       *os.File
	start   int64 // its position
	size    int64 // of what is whole and durable
	extents int   // of runs, which are not packed
	readers int
	removed bool
	damaged bool // something in it could not be read: it is kept for who wants to look
}

// extent is a section that is not packed.
type extent struct {
	file *file
	pos  int64 // where it begins
	n    int32 // its length, head and all
}

func (e extent) end() int64 { return e.pos + int64(e.n) }

// appendRecord appends r, as it stands in a section.
func appendRecord(b []byte, r *record) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.task)))
	b = append(b, r.task...)
	b = binary.AppendUvarint(b, uint64(r.attempt))
	b = append(b, r.stream)
	b = binary.AppendUvarint(b, uint64(r.offset))
	b = binary.AppendUvarint(b, uint64(r.at))
	b = binary.AppendUvarint(b, uint64(r.cut))
	b = binary.AppendUvarint(b, uint64(len(r.text)))
	return append(b, r.text...)
}

// openSection leaves room for the head and names the run.
func openSection(b []byte, run string) []byte {
	b = append(b, make([]byte, sectionHead)...)
	b = binary.AppendUvarint(b, uint64(len(run)))
	return append(b, run...)
}

// closeSection fills in the head of the section that b[from:] is.
func closeSection(b []byte, from int) {
	body := b[from+sectionHead:]
	binary.LittleEndian.PutUint32(b[from:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[from+4:], crc32.Checksum(body, castagnoli))
}

// checkSection is the body of a section, if it is whole.
func checkSection(b []byte) ([]byte, error) {
	if len(b) < sectionHead || int(binary.LittleEndian.Uint32(b)) != len(b)-sectionHead {
		return nil, fmt.Errorf("%w: a section of the journal has another length", ErrDamaged)
	}
	body := b[sectionHead:]
	if binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(body, castagnoli) {
		return nil, fmt.Errorf("%w: the checksum of a section of the journal is another", ErrDamaged)
	}
	return body, nil
}

// parseSection calls f with the records of a section's body. Their texts are
// parts of it.
func parseSection(body []byte, pos int64, f func(r record)) (run string, err error) {
	p := parser{b: body}
	run = string(p.bytes(maxName))
	if p.bad || run == "" {
		return "", fmt.Errorf("%w: a section of the journal names no run", ErrDamaged)
	}
	for len(p.b) > 0 {
		r := record{pos: pos}
		r.task = string(p.bytes(maxName))
		r.attempt = int(p.number(maxAttempt))
		r.stream = p.byte()
		r.offset = int64(p.number(maxOffset))
		r.at = int64(p.number(maxTime))
		r.cut = int64(p.number(maxOffset))
		r.text = p.bytes(task.MaxFrame)
		if p.bad || r.stream != task.Stdout && r.stream != task.Stderr {
			return run, fmt.Errorf("%w: a record of the journal", ErrDamaged)
		}
		if f != nil {
			f(r)
		}
	}
	return run, nil
}

// Bounds of what a record holds, as a worker may send it.
const (
	maxName    = 4 << 10
	maxAttempt = 1 << 31
	maxOffset  = 1 << 56
	maxTime    = 1 << 52
)

// parser reads fields; after the first that is not there it reads nothing.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) number(limit uint64) uint64 {
	n, w := binary.Uvarint(p.b)
	if p.bad || w <= 0 || n > limit {
		p.bad = true
		return 0
	}
	p.b = p.b[w:]
	return n
}

// signed reads a number that may be negative.
func (p *parser) signed() int64 {
	n, w := binary.Varint(p.b)
	if p.bad || w <= 0 {
		p.bad = true
		return 0
	}
	p.b = p.b[w:]
	return n
}

func (p *parser) byte() byte {
	if p.bad || len(p.b) == 0 {
		p.bad = true
		return 0
	}
	c := p.b[0]
	p.b = p.b[1:]
	return c
}

func (p *parser) bytes(limit uint64) []byte {
	n := p.number(limit)
	if p.bad || n > uint64(len(p.b)) {
		p.bad = true
		return nil
	}
	b := p.b[:n:n]
	p.b = p.b[n:]
	return b
}

// replay brings back what the journal holds, and begins a new file: the last
// one may end in the middle of a section, which nobody was told is kept.
func (s *Store) replay(ctx context.Context) error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	next, err := s.list.position(ctx)
	if err != nil {
		return err
	}
	var starts []int64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), fileSuffix)
		var start int64
		if _, err := fmt.Sscanf(name, "%016x", &start); !ok || err != nil || e.Name() != fileName(start) {
			continue // not ours
		}
		starts = append(starts, start)
	}
	slices.Sort(starts)
	upto := map[string]int64{} // what is packed of each run
	for i, start := range starts {
		end, err := s.replayFile(ctx, start, i == len(starts)-1, upto)
		if err != nil {
			return fmt.Errorf("read the journal again: %w", err)
		}
		next = max(next, end)
	}
	for run, l := range s.live {
		l.ended = !s.d.Live(run)
	}
	if err := s.nextFile(next); err != nil {
		return err
	}
	s.sweepFiles()
	return nil
}

// replayFile reads one file, and returns the position behind it.
func (s *Store) replayFile(ctx context.Context, start int64, last bool, upto map[string]int64) (int64, error) {
	f, err := os.OpenFile(filepath.Join(s.cfg.Dir, fileName(start)), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	j := &file{f: f, start: start}
	s.files = append(s.files, j)
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	r := bufio.NewReaderSize(f, 1<<20)
	var buf []byte
	for j.size < info.Size() {
		buf, err = readSection(r, buf)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return 0, err
		}
		pos := start + j.size
		var run string
		if err == nil {
			var records []record
			run, err = parseSection(buf[sectionHead:], pos, func(r record) { records = append(records, r) })
			for i := range records {
				s.writer.ends.raise(attemptKey{run, records[i].task, records[i].attempt}, records[i].end())
			}
		}
		if err != nil {
			if !last {
				// Not torn by a crash: somebody else did this. What comes
				// after it cannot be told from garbage.
				j.damaged = true
				s.log.Error("a part of the journal of logs cannot be read, and is left out", "file", f.Name(), "from", j.size, "of", info.Size(), "err", err)
			} else if err := f.Truncate(j.size); err != nil {
				return 0, err
			}
			break
		}
		packed, ok := upto[run]
		if !ok {
			if packed, err = s.list.upto(ctx, run); err != nil {
				return 0, err
			}
			upto[run] = packed
		}
		if pos >= packed {
			l := s.liveOf(run)
			l.upto = packed
			l.add(extent{j, pos, int32(len(buf))}, s.d.Clock.Mono())
		}
		j.size += int64(len(buf))
	}
	s.journal += j.size
	if !last {
		return start + info.Size(), nil
	}
	return start + j.size, nil
}

// readSection reads a section whole, head and all, into buf.
func readSection(r io.Reader, buf []byte) ([]byte, error) {
	buf = slices.Grow(buf[:0], sectionHead)[:sectionHead]
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, torn(err)
	}
	n := binary.LittleEndian.Uint32(buf)
	if n == 0 || n > maxSection {
		return buf, fmt.Errorf("%w: a section of %d bytes", ErrDamaged, n)
	}
	buf = slices.Grow(buf, int(n))[:sectionHead+int(n)]
	if _, err := io.ReadFull(r, buf[sectionHead:]); err != nil {
		return buf, torn(err)
	}
	_, err := checkSection(buf)
	return buf, err
}

// torn is what the end of a file inside a section means.
func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends inside a section", ErrDamaged)
	}
	return err
}

func fileName(start int64) string { return fmt.Sprintf("%016x", start) + fileSuffix }

// nextFile begins the file to write to.
func (s *Store) nextFile(start int64) error {
	f, err := os.OpenFile(filepath.Join(s.cfg.Dir, fileName(start)), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return roomError(err)
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		f.Close()
		return roomError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// An empty one of the same name may be there from before.
	s.files = slices.DeleteFunc(s.files, func(j *file) bool {
		if j.start == start {
			j.f.Close()
		}
		return j.start == start
	})
	s.files = append(s.files, &file{f: f, start: start})
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// sweepFiles removes the files of which everything is packed. Under mu, or
// before anybody else is there.
func (s *Store) sweepFiles() {
	kept := s.files[:0]
	for i, j := range s.files {
		if i == len(s.files)-1 || j.extents > 0 {
			kept = append(kept, j)
			continue
		}
		away := os.Remove
		if j.damaged {
			away = func(name string) error { return os.Rename(name, name+".damaged") }
		}
		// Should this fail it is read again by the next start, and removed then.
		if err := away(j.f.Name()); err != nil {
			s.log.Warn("cannot remove a file of the journal of logs", "err", err)
		}
		s.journal -= j.size
		j.removed = true
		j.release()
	}
	clear(s.files[len(kept):])
	s.files = kept
}

// release closes a file that was removed once nobody reads it. Under mu.
func (j *file) release() {
	if j.removed && j.readers == 0 {
		j.f.Close()
	}
}

func (s *Store) closeFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.files {
		j.removed = true
		j.release()
	}
	s.files = nil
}

// records reads extents, which the caller retains.
func (s *Store) records(extents []extent) ([]record, error) {
	total := 0
	for _, e := range extents {
		total += int(e.n)
	}
	buf := make([]byte, 0, total) // texts are parts of it
	var out []record
	for _, e := range extents {
		b := buf[len(buf) : len(buf)+int(e.n)]
		buf = buf[:len(buf)+int(e.n)]
		if _, err := e.file.f.ReadAt(b, e.pos-e.file.start); err != nil {
			return nil, fmt.Errorf("read the journal of logs: %w", err)
		}
		body, err := checkSection(b)
		if err == nil {
			_, err = parseSection(body, e.pos, func(r record) { out = append(out, r) })
		}
		if err != nil {
			return nil, fmt.Errorf("read %s at %d: %w", e.file.f.Name(), e.pos-e.file.start, err)
		}
	}
	return out, nil
}

// roomError gives errors of the system the name that callers know.
func roomError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w; workers keep what they have and send it again", ErrFull, err)
	}
	return err
}
