package worker

import (
	"context"
	"log/slog"
	"net/http"
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
)

// unwilling refuses the first that it hears.
type unwilling struct {
	Server
	took chan []byte
	said int
}

func (u *unwilling) Logs(_ context.Context, frames []byte) (task.Logged, error) {
	if u.said++; u.said == 1 {
		return task.Logged{}, &Refusal{Method: http.MethodPost, Path: task.PathLogs, Status: http.StatusBadRequest, Text: "not a frame"}
	}
	u.took <- frames
	return task.Logged{}, nil
}

// What a server calls wrong is not sent for ever, and does not hold up what
// comes after it.
func TestRefusedLogsAreLeftOut(t *testing.T) {
	u := &unwilling{took: make(chan []byte, 1)}
	l := newLogs(u, clock.Real(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := l.printer(ctx, task.Ref{Run: "r", Task: "1", Attempt: 1, Token: "t"}, 1<<20, clock.Real())
	p.print(task.Stdout, []byte("wrong\n"))
	ended := make(chan struct{})
	go func() { defer close(ended); l.run(ctx) }()
	l.await(ctx, func() bool { return l.out == 1 })
	p.print(task.Stdout, []byte("right\n"))
	if got := string(<-u.took); len(got) < 6 || got[len(got)-6:] != "right\n" {
		t.Errorf("%q", got)
	}
	cancel()
	<-ended
}
