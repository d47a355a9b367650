package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"cairn.dev/cairn/internal/task"
)

// groupBytes is about how much output one sync covers at most.
const groupBytes = 4 << 20

// call is one Append.
type call struct {
	frames []task.Frame
	known  []known // what is packed of runs that are new to this process
	full   refs
	err    error
	done   chan struct{}
}

// Append keeps frames, and returns when they are durable. Calls that wait at
// the same time share a sync. Of an attempt, what was kept before is not kept
// again: frames of one attempt have to be handed in in order, and a call that
// failed may be repeated, as often as need be. What lies beyond [Config.Limit]
// is counted and not kept, and the attempt is among [task.Logged.Full].
// The frames' bytes must not change before it returns; when ctx ends they may
// be kept or not, and must not change at all.
func (s *Store) Append(ctx context.Context, frames []task.Frame) (task.Logged, error) {
	for i := range frames {
		if err := check(&frames[i]); err != nil {
			return task.Logged{}, fmt.Errorf("keep logs: %w", err)
		}
	}
	if len(frames) == 0 {
		return task.Logged{}, nil
	}
	if err := s.room(); err != nil {
		return task.Logged{}, fmt.Errorf("keep logs: %w", err)
	}
	known, err := s.known(ctx, frames)
	if err != nil {
		return task.Logged{}, fmt.Errorf("keep logs: %w", err)
	}
	c := &call{frames: frames, known: known, done: make(chan struct{})}
	select {
	case s.calls <- c:
	case <-s.stop:
		return task.Logged{}, ErrClosed
	case <-ctx.Done():
		return task.Logged{}, ctx.Err()
	}
	select {
	case <-c.done:
	case <-s.done:
		select {
		case <-c.done:
		default:
			return task.Logged{}, ErrClosed
		}
	case <-ctx.Done():
		return task.Logged{}, ctx.Err()
	}
	if c.err != nil {
		return task.Logged{}, fmt.Errorf("keep logs: %w", c.err)
	}
	return task.Logged{Full: c.full.list}, nil
}

// check refuses what a record cannot hold.
func check(f *task.Frame) error {
	switch {
	case f.Run == "" || len(f.Run) > maxName || f.Task == "" || len(f.Task) > maxName:
		return fmt.Errorf("%w: a frame names a run and a task, of at most %d bytes each", ErrInvalid, maxName)
	case f.Attempt < 0 || f.Attempt > maxAttempt:
		return fmt.Errorf("%w: a frame of attempt %d", ErrInvalid, f.Attempt)
	case f.Stream != task.Stdout && f.Stream != task.Stderr:
		return fmt.Errorf("%w: a frame of stream %d", ErrInvalid, f.Stream)
	case len(f.Bytes) > task.MaxFrame:
		return fmt.Errorf("%w: a frame of %d bytes, at most %d", ErrInvalid, len(f.Bytes), task.MaxFrame)
	case f.Offset < 0 || f.Offset > maxOffset/2:
		return fmt.Errorf("%w: a frame at offset %d", ErrInvalid, f.Offset)
	case f.At.UnixMilli() < 0 || f.At.UnixMilli() > maxTime:
		return fmt.Errorf("%w: a frame of the time %v", ErrInvalid, f.At)
	}
	return nil
}

// room says why nothing can be accepted, or nil. Refusing is better than
// waiting: the worker sends again, and meanwhile slows its programs down.
func (s *Store) room() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.journal < 2*s.cfg.JournalBytes {
		return nil
	}
	s.poke()
	if s.trouble != nil {
		return fmt.Errorf("%w: the journal has %d bytes and cannot be packed: %w", ErrFull, s.journal, s.trouble)
	}
	return fmt.Errorf("%w: the journal has %d bytes, and is being packed; send again later", ErrFull, s.journal)
}

// commits is the committer: it writes the calls that wait, group by group.
func (s *Store) commits() {
	defer close(s.done)
	for {
		var group []*call
		select {
		case c := <-s.calls:
			group = append(group, c)
		case <-s.stop:
			return // who waits is told by done
		}
		size := 0
		for more := true; more; {
			for _, f := range group[len(group)-1].frames {
				size += len(f.Bytes)
			}
			if size >= groupBytes {
				break
			}
			select {
			case c := <-s.calls:
				group = append(group, c)
			default:
				more = false
			}
		}
		err := s.commit(group)
		for _, c := range group {
			c.err = err
			close(c.done)
		}
	}
}

// writer is what only the committer knows.
type writer struct {
	ends ends
	buf  []byte
	undo []undo
	sync func(*os.File) error // the system's; another in tests
	// torn is how much may be behind the last file's size, of a write that failed.
	torn int64
}

type undo struct {
	key attemptKey
	end int64
}

// entry is a record on its way into a section.
type entry struct {
	record
	joined bool // text is a copy, and may be appended to
}

// commit makes a group durable, whole or not at all.
func (s *Store) commit(group []*call) error {
	w := &s.writer
	w.undo = w.undo[:0]
	runs := map[string][]entry{}
	var order []string
	for _, c := range group {
		s.learn(c.known)
	}
	for _, c := range group {
		for i := range c.frames {
			f := &c.frames[i]
			e, ok, full := s.cut(f)
			if full {
				c.full.add(f.Ref)
			}
			if !ok {
				continue
			}
			if runs[f.Run] == nil {
				order = append(order, f.Run)
			}
			runs[f.Run] = join(runs[f.Run], e)
		}
	}
	if len(order) == 0 {
		return nil
	}
	err := s.write(runs, order)
	if err != nil {
		for _, u := range slices.Backward(w.undo) {
			w.ends.set(u.key, u.end)
		}
	}
	if cap(w.buf) > 4*groupBytes {
		w.buf = nil
	}
	return err
}

// cut takes from a frame what is there already and what is too much.
func (s *Store) cut(f *task.Frame) (e entry, ok, full bool) {
	k := attemptKey{f.Run, f.Task, f.Attempt}
	had := s.writer.ends.get(k)
	end := f.Offset + int64(len(f.Bytes))
	full = max(had, end) >= s.cfg.Limit
	if end <= had {
		return entry{}, false, full
	}
	s.writer.undo = append(s.writer.undo, undo{k, had})
	s.writer.ends.set(k, end)
	if len(f.Bytes) == 0 { // its worker did not send what came before
		return entry{record: record{task: f.Task, attempt: f.Attempt, stream: f.Stream, offset: had, at: f.At.UnixMilli(), cut: end - had}}, true, full
	}
	from := max(f.Offset, had)
	keep := min(max(s.cfg.Limit-from, 0), end-from)
	return entry{record: record{task: f.Task, attempt: f.Attempt, stream: f.Stream, offset: from, at: f.At.UnixMilli(), cut: end - from - keep,
		text: f.Bytes[from-f.Offset:][:keep]}}, true, full
}

// join appends e, or makes it part of the record before where that tells the
// same: a program that writes byte by byte is not to cost a record for each.
func join(es []entry, e entry) []entry {
	if len(es) > 0 {
		b := &es[len(es)-1]
		same := b.task == e.task && b.attempt == e.attempt && b.end() == e.offset
		switch {
		case same && b.cut > 0 && len(e.text) == 0:
			b.cut += e.cut
			return es
		case same && b.stream == e.stream && b.at == e.at && b.cut == 0 && len(b.text)+len(e.text) <= task.MaxFrame:
			if !b.joined {
				b.text, b.joined = slices.Clone(b.text), true
			}
			b.text = append(b.text, e.text...)
			b.cut = e.cut
			return es
		}
	}
	return append(es, e)
}

// write appends the sections of a group to the journal and syncs it.
func (s *Store) write(runs map[string][]entry, order []string) error {
	w := &s.writer
	s.mu.Lock()
	j := s.files[len(s.files)-1]
	s.mu.Unlock()
	if j.size >= min(fileBytes, s.cfg.JournalBytes/8) || w.torn > 0 {
		if err := s.nextFile(j.start + j.size + w.torn); err != nil {
			return fmt.Errorf("begin a file of the journal: %w", err)
		}
		s.mu.Lock()
		s.sweepFiles() // the one before may have nothing
		j = s.files[len(s.files)-1]
		s.mu.Unlock()
		w.torn = 0
	}
	type section struct {
		run      string
		from, to int
	}
	var sections []section
	w.buf = w.buf[:0]
	for _, run := range order {
		from := len(w.buf)
		w.buf = openSection(w.buf, run)
		for i := range runs[run] {
			if len(w.buf)-from > sectionBytes {
				closeSection(w.buf, from)
				sections = append(sections, section{run, from, len(w.buf)})
				from = len(w.buf)
				w.buf = openSection(w.buf, run)
			}
			w.buf = appendRecord(w.buf, &runs[run][i].record)
		}
		closeSection(w.buf, from)
		sections = append(sections, section{run, from, len(w.buf)})
	}
	_, err := j.f.WriteAt(w.buf, j.size)
	if err == nil {
		err = w.sync(j.f)
	}
	if err != nil {
		// After a sync that failed nobody knows what the disk has of this
		// file's end: what comes is written to another.
		w.torn = int64(len(w.buf))
		return errors.Join(fmt.Errorf("write the journal: %w", roomError(err)), j.f.Truncate(j.size))
	}
	now := s.d.Clock.Mono()
	s.mu.Lock()
	defer s.mu.Unlock()
	due := false
	for _, c := range sections {
		l := s.liveOf(c.run)
		l.add(extent{j, j.start + j.size + int64(c.from), int32(c.to - c.from)}, now)
		due = due || l.bytes >= s.cfg.SegmentBytes
	}
	j.size += int64(len(w.buf))
	s.journal += int64(len(w.buf))
	if due || s.journal > s.cfg.JournalBytes {
		s.poke()
	}
	return nil
}
