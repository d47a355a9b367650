package work

import "cairn.dev/cairn/internal/work/machine"

// Stats are numbers of one moment, and counts since the start.
type Stats struct {
	Runs    int // that have not ended
	Active  int // tasks that workers have
	Ready   int // runs with tasks that could be given out
	Workers int // that were heard of lately
	Waiting int // workers that wait for tasks

	Ended    map[machine.Phase]int64 // runs, by how they ended
	Outcomes map[machine.Phase]int64 // attempts at tasks, by how they ended
	Lost     int64                   // attempts that were taken from silent workers
	Refused  int64                   // outcomes that came too late
}

// counts are what Stats count.
type counts struct {
	ended, outcomes map[machine.Phase]int64
	lost, refused   int64
}

// Stats counts.
func (s *Server) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := Stats{Runs: len(s.runs), Active: s.active, Workers: len(s.workers), Lost: s.counts.lost, Refused: s.counts.refused,
		Ended: map[machine.Phase]int64{}, Outcomes: map[machine.Phase]int64{}}
	for _, p := range s.pools {
		out.Waiting += len(p.waiters)
	}
	for _, r := range s.runs {
		if r.queued != nil {
			out.Ready++
		}
	}
	for _, p := range []machine.Phase{machine.Succeeded, machine.Failed, machine.Errored, machine.Canceled} {
		out.Ended[p], out.Outcomes[p] = s.counts.ended[p], s.counts.outcomes[p]
	}
	return out
}
