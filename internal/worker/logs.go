package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
)

const (
	// logBuffer is how much output of all tasks waits for the server. Programs
	// that print more than it takes are slowed down by their pipes.
	logBuffer = 4 << 20
	logBatch  = 1 << 20
)

// logs sends what tasks print, in order.
type logs struct {
	server Server
	clock  clock.Clock
	log    *slog.Logger

	mu      sync.Mutex
	changed chan struct{}
	frames  [][]byte
	size    int
	in, out int // frames that came, and that the server has
	full    map[string]bool
	over    bool
}

func newLogs(s Server, c clock.Clock, log *slog.Logger) *logs {
	return &logs{server: s, clock: c, log: log, changed: make(chan struct{}), full: map[string]bool{}}
}

func (l *logs) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *logs) await(ctx context.Context, ready func() bool) bool {
	for {
		l.mu.Lock()
		if ready() || l.over {
			l.mu.Unlock()
			return true
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// run sends until ctx ends.
func (l *logs) run(ctx context.Context) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
		l.change()
	}()
	for wait := time.Duration(0); ; {
		if !l.await(ctx, func() bool { return len(l.frames) > 0 }) {
			return
		}
		l.mu.Lock()
		n, size := 0, 0
		for n < len(l.frames) && (n == 0 || size+len(l.frames[n]) <= logBatch) {
			size += len(l.frames[n])
			n++
		}
		batch := bytes.Join(l.frames[:n], nil)
		l.mu.Unlock()
		answer, err := l.server.Logs(ctx, batch)
		if r, ok := errors.AsType[*Refusal](err); ok && (r.Status == http.StatusBadRequest || r.Status == http.StatusUnprocessableEntity) {
			// It will not become right by being sent again, and outcomes wait for it.
			l.log.Error("the server does not take a part of the logs; it is left out", "bytes", size, "err", err)
			err = nil
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			wait = min(max(2*wait, minBackoff), maxBackoff)
			l.log.Log(ctx, levelOf(wait), "cannot send logs", "err", err, "again_in", wait)
			_ = clock.Sleep(ctx, l.clock, jitter(wait))
			continue
		}
		wait = 0
		l.mu.Lock()
		l.frames = l.frames[n:]
		l.size -= size
		l.out += n
		for _, r := range append(answer.Full, answer.Refused...) {
			l.full[r.Token] = true
		}
		l.change()
		l.mu.Unlock()
	}
}

// printer takes what one task prints. Its two streams may print at once.
type printer struct {
	logs  *logs
	ctx   context.Context // of the task; once it has to end it is not waited for
	ref   task.Ref
	limit int64
	clock clock.Clock

	mu     sync.Mutex
	partly [2][]byte // lines that have not ended
	offset int64
	cut    int64
	last   int // the number of its last frame
}

func (l *logs) printer(ctx context.Context, r task.Ref, limit int64, c clock.Clock) *printer {
	return &printer{logs: l, ctx: ctx, ref: r, limit: limit, clock: c}
}

// print blocks while the server does not keep up.
func (p *printer) print(stream byte, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := &p.partly[stream-1]
	*part = append(*part, b...)
	end := bytes.LastIndexByte(*part, '\n') + 1
	if end == 0 && len(*part) >= task.MaxLine {
		end = len(*part)
	}
	if end > 0 {
		p.send(stream, (*part)[:end])
		*part = append((*part)[:0], (*part)[end:]...)
	}
}

func (p *printer) send(stream byte, b []byte) {
	for len(b) > 0 {
		n := min(len(b), task.MaxFrame)
		if keep := int64(n); p.offset+keep > p.limit {
			n = int(max(p.limit-p.offset, 0))
		}
		if n == 0 || !p.logs.add(p, task.Frame{Ref: p.ref, Stream: stream, Offset: p.offset, At: p.clock.Now(), Bytes: b[:n]}) {
			p.cut += int64(len(b))
			return
		}
		p.offset += int64(n)
		b = b[n:]
	}
}

// add queues a frame; false when the server wants no more of this task.
func (l *logs) add(p *printer, f task.Frame) bool {
	b := task.AppendFrame(nil, f)
	took := false
	l.await(p.ctx, func() bool {
		if l.full[p.ref.Token] || l.over {
			return true
		}
		if l.size > 0 && l.size+len(b) > logBuffer {
			return false
		}
		l.frames = append(l.frames, b)
		l.size += len(b)
		l.in++
		p.last = l.in
		took = true
		l.change()
		return true
	})
	return took
}

// truncated ends what was begun, and says how much was not kept.
func (p *printer) truncated() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, part := range p.partly {
		p.send(byte(i+1), part)
		p.partly[i] = nil
	}
	if p.cut > 0 { // whoever reads the log is to know
		p.logs.tell(p, task.Frame{Ref: p.ref, Stream: task.Stdout, Offset: p.offset + p.cut, At: p.clock.Now()})
	}
	return p.cut
}

// tell queues a frame without bytes, also when the server wants no more of them.
func (l *logs) tell(p *printer, f task.Frame) {
	b := task.AppendFrame(nil, f)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.frames = append(l.frames, b)
	l.size += len(b)
	l.in++
	p.last = l.in
	l.change()
}

// flush returns when the server has what was printed.
func (p *printer) flush(ctx context.Context) {
	p.logs.await(ctx, func() bool { return p.logs.out >= p.last })
	p.logs.mu.Lock()
	defer p.logs.mu.Unlock()
	delete(p.logs.full, p.ref.Token)
}
