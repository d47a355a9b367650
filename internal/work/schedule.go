package work

import (
	"context"
	"time"
)

// schedule starts runs at its times.
type schedule struct {
	next time.Time
}

func (s *Server) readSchedules(context.Context) error { return nil }

// schedule begins what is due.
func (c *commit) schedule() {}
