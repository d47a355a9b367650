package logs

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"cairn.dev/cairn/internal/task"
)

// A segment is a part of a run's logs, packed:
//
//	blocks of text, compressed one by one
//	the directory, compressed
//	length of the directory, its checksum (four bytes each, little endian), magic
//
// The texts of all records, sorted by task, attempt and offset, are one string,
// of which each block is blockSize bytes and the last one the rest. So the
// text of a task is in a few blocks, and the others are left alone. The
// directory is the length of that string, the lengths of the compressed
// blocks, and all of the records but their texts, each attempt by itself.

const (
	blockSize = 256 << 10
	// maxText and maxRecords bound a segment: who reads one holds it in memory.
	maxText      = 16 << 20
	maxRecords   = 64 << 10
	maxDirectory = 16 << 20
	// maxPacked bounds a block or directory as it is stored.
	maxPacked = maxDirectory + maxDirectory/8
	footSize  = 16
	magic     = "cairnlg1"
)

// sortRecords puts records in the order of segments, and drops what is there
// twice: a start may find in the journal what a worker has sent again since.
func sortRecords(rs []record) []record {
	slices.SortStableFunc(rs, func(a, b record) int {
		return cmp.Or(strings.Compare(a.task, b.task), cmp.Compare(a.attempt, b.attempt), cmp.Compare(a.offset, b.offset))
	})
	out := rs[:0]
	var name string
	var attempt int
	var end int64
	for i, r := range rs {
		if i == 0 || name != r.task || attempt != r.attempt {
			name, attempt, end = r.task, r.attempt, 0
		}
		if r.end() <= end {
			continue
		}
		if skip := end - r.offset; skip > 0 {
			n := min(skip, int64(len(r.text)))
			r.text, r.cut, r.offset = r.text[n:], r.cut-(skip-n), end
		}
		end = r.end()
		out = append(out, r)
	}
	return out
}

// openCodec makes what compresses and what unpacks, within their bounds.
func (s *Store) openCodec() (err error) {
	s.zip, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(blockSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	s.unzip, err = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDirectory), zstd.WithDecoderLowmem(true))
	return err
}

// encode makes a segment of sorted records.
func (s *Store) encode(rs []record) []byte {
	size := 0
	for i := range rs {
		size += len(rs[i].text)
	}
	text := make([]byte, 0, size)
	for i := range rs {
		text = append(text, rs[i].text...)
	}
	var out, dir []byte
	var blocks []int
	for b := range slices.Chunk(text, blockSize) {
		before := len(out)
		out = s.zip.EncodeAll(b, out)
		blocks = append(blocks, len(out)-before)
	}
	dir = binary.AppendUvarint(dir, uint64(size))
	for _, n := range blocks {
		dir = binary.AppendUvarint(dir, uint64(n))
	}
	dir = binary.AppendUvarint(dir, uint64(len(rs)))
	before := ""
	for from := 0; from < len(rs); {
		to := from + 1
		for to < len(rs) && rs[to].task == rs[from].task && rs[to].attempt == rs[from].attempt {
			to++
		}
		name := rs[from].task
		same := common(before, name)
		dir = binary.AppendUvarint(dir, uint64(same))
		dir = binary.AppendUvarint(dir, uint64(len(name)-same))
		dir = append(dir, name[same:]...)
		dir = binary.AppendUvarint(dir, uint64(rs[from].attempt))
		dir = binary.AppendUvarint(dir, uint64(to-from))
		var end, at, pos int64
		for i := range rs[from:to] {
			r := &rs[from+i]
			dir = append(dir, r.stream)
			dir = binary.AppendUvarint(dir, uint64(r.offset-end))
			dir = binary.AppendVarint(dir, r.at-at)
			dir = binary.AppendVarint(dir, r.pos-pos)
			dir = binary.AppendUvarint(dir, uint64(len(r.text)))
			dir = binary.AppendUvarint(dir, uint64(r.cut))
			end, at, pos = r.end(), r.at, r.pos
		}
		before, from = name, to
	}
	at := len(out)
	out = s.zip.EncodeAll(dir, out)
	n, sum := len(out)-at, crc32.Checksum(out[at:], castagnoli)
	out = binary.LittleEndian.AppendUint32(out, uint32(n))
	out = binary.LittleEndian.AppendUint32(out, sum)
	return append(out, magic...)
}

// common is the length of the common beginning.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// segment is one that is being read.
type segment struct {
	from    io.ReadSeeker
	size    int   // of all text
	blocks  []int // where each begins in from, and where the last one ends
	records []record
	text    []int // where each record's text begins
}

// open reads the directory of a segment: records without texts.
func (s *Store) open(from io.ReadSeeker) (*segment, error) {
	g, err := s.readDirectory(from)
	if err != nil {
		return nil, fmt.Errorf("read a segment of logs: %w", err)
	}
	return g, nil
}

func (s *Store) readDirectory(from io.ReadSeeker) (*segment, error) {
	end, err := from.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	foot, err := readAt(from, end-footSize, footSize)
	if err != nil {
		return nil, err
	}
	n, sum := int64(binary.LittleEndian.Uint32(foot)), binary.LittleEndian.Uint32(foot[4:])
	if string(foot[8:]) != magic || n > maxPacked {
		return nil, fmt.Errorf("%w: it does not end as one does", ErrDamaged)
	}
	packed, err := readAt(from, end-footSize-n, int(n))
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(packed, castagnoli) != sum {
		return nil, fmt.Errorf("%w: the checksum of its directory is another", ErrDamaged)
	}
	dir, err := s.unzip.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: its directory: %w", ErrDamaged, err)
	}
	g := &segment{from: from}
	if !g.parse(dir, end-footSize-n) {
		return nil, fmt.Errorf("%w: its directory makes no sense", ErrDamaged)
	}
	return g, nil
}

// parse reads the directory, before which there are blocks of so many bytes.
func (g *segment) parse(dir []byte, blocks int64) bool {
	p := parser{b: dir}
	g.size = int(p.number(maxText))
	at := 0
	g.blocks = append(g.blocks, 0)
	for range (g.size + blockSize - 1) / blockSize {
		at += int(p.number(maxPacked))
		g.blocks = append(g.blocks, at)
	}
	n := int(p.number(maxRecords))
	if p.bad || int64(at) != blocks {
		return false
	}
	g.records = make([]record, 0, min(n, len(p.b)))
	g.text = make([]int, 0, min(n, len(p.b)))
	name, begin := "", 0
	for len(g.records) < n && !p.bad {
		same := int(p.number(uint64(len(name))))
		rest := p.bytes(maxName)
		name = name[:same] + string(rest)
		attempt := int(p.number(maxAttempt))
		var end, at, pos int64
		count := int(p.number(uint64(n - len(g.records))))
		if count == 0 || len(name) > maxName {
			return false
		}
		for range count {
			r := record{task: name, attempt: attempt, stream: p.byte()}
			r.offset = end + int64(p.number(maxOffset))
			r.at = at + p.signed()
			r.pos = pos + p.signed()
			size := int(p.number(task.MaxFrame))
			r.cut = int64(p.number(maxOffset))
			if p.bad || r.end() > 1<<62 || r.stream != task.Stdout && r.stream != task.Stderr || begin+size > g.size {
				return false
			}
			g.records, g.text = append(g.records, r), append(g.text, begin)
			begin += size
			end, at, pos = r.offset+int64(size)+r.cut, r.at, r.pos
		}
	}
	return !p.bad && len(p.b) == 0 && begin == g.size
}

// length is that of a record's text, which need not be loaded.
func (g *segment) length(i int) int {
	if i+1 < len(g.text) {
		return g.text[i+1] - g.text[i]
	}
	return g.size - g.text[i]
}

// load reads the texts of the records that are wanted, and returns those.
func (s *Store) load(g *segment, want func(*record) bool) ([]record, error) {
	text := make([]byte, g.size)
	loaded := make([]bool, len(g.blocks)-1)
	out := g.records[:0]
	for i := range g.records {
		if !want(&g.records[i]) {
			continue
		}
		r := g.records[i]
		from, to := g.text[i], g.text[i]+g.length(i)
		for b := from / blockSize; b*blockSize < to; b++ {
			if loaded[b] {
				continue
			}
			if err := s.loadBlock(g, b, text); err != nil {
				return nil, fmt.Errorf("read a segment of logs: %w", err)
			}
			loaded[b] = true
		}
		r.text = text[from:to:to]
		out = append(out, r)
	}
	return out, nil
}

func (s *Store) loadBlock(g *segment, b int, text []byte) error {
	packed, err := readAt(g.from, int64(g.blocks[b]), g.blocks[b+1]-g.blocks[b])
	if err != nil {
		return err
	}
	from, to := b*blockSize, min((b+1)*blockSize, g.size)
	got, err := s.unzip.DecodeAll(packed, text[from:from:to])
	if err != nil || len(got) != to-from {
		return fmt.Errorf("%w: a block of it (%d bytes, want %d): %w", ErrDamaged, len(got), to-from, err)
	}
	copy(text[from:to], got) // it is there already unless it was too large at first
	return nil
}

// readAt reads n bytes at an offset.
func readAt(from io.ReadSeeker, at int64, n int) ([]byte, error) {
	if at < 0 || n < 0 || n > maxPacked {
		return nil, fmt.Errorf("%w: it is shorter than it says", ErrDamaged)
	}
	if _, err := from.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: it is shorter than it says", ErrDamaged)
		}
		return nil, err
	}
	return b, nil
}
