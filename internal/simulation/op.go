package simulation

import (
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/content"
)

// A Kind is what an operation does.
type Kind uint8

// The operations.
const (
	opImage     Kind = iota // push blobs of M and M itself, to R, with tag Tag
	opPushBlob              // push blob B to R
	opStat                  // ask for blob B of R
	opMount                 // mount blob B into R from the other repository
	opPush                  // push manifest M to R with tag Tag
	opRetag                 // point tag Tag of R at M
	opDeleteTag             // delete tag Tag of R
	opDelete                // delete manifest M of R
	opPull                  // pull M of R by digest
	opPullTag               // pull tag Tag of R
	opPin                   // pin M of R
	opUnpin                 // unpin M of R
	opRestore               // restore M of R
	opDated                 // report that digest M was used N units ago; R: repository named, or -1
	opState                 // reporter R states that digests M and B (-1: none) are in use
	opForget                // forget reporter R
	opAdvance               // N units pass
	opJump                  // the clock jumps by N units
	opOpen                  // somebody opens an uncovered interval for repository 1
	opClose                 // and closes it
	opCrash                 // the process dies
	opStop                  // the process ends cleanly
	opStart                 // the process starts
	opTick                  // retention runs; Sub come in before call N
	opBegin                 // retention plans …
	opNext                  // … and does the next part of its plan
	opCollect               // the collector runs
	opReconcile             // the reconciler runs
	nKinds
)

// An Op is one step of a history.
type Op struct {
	Kind         Kind
	R, M, B, Tag int8
	N            int16
	// Crash kills the process at a commit of the registry: 2n-1 before the
	// n-th commit of the operation, 2n after it; 0: not.
	Crash int8
	Sub   []Op
}

func (l *Lab) print(op Op) string {
	c := l.cat
	repo := func() string {
		if op.R < 0 || int(op.R) >= nRepo {
			return "any"
		}
		return c.repos[op.R]
	}
	man := func() string { return c.mans[op.M].name }
	dig := func(d int8) string {
		if int(d) < nMan {
			return c.mans[d].name
		}
		return c.blobs[d-nMan].name
	}
	tag := func() string {
		switch {
		case op.Tag < 0:
			return ""
		case op.Tag == tagFallback:
			return ":C.sig"
		}
		return ":" + c.tags[op.Tag]
	}
	var s string
	switch op.Kind {
	case opImage:
		s = fmt.Sprintf("push image %s/%s%s", repo(), man(), tag())
	case opPushBlob:
		s = fmt.Sprintf("push blob %s/%s", repo(), c.blobs[op.B].name)
	case opStat:
		s = fmt.Sprintf("stat blob %s/%s", repo(), c.blobs[op.B].name)
	case opMount:
		s = fmt.Sprintf("mount blob %s/%s", repo(), c.blobs[op.B].name)
	case opPush:
		s = fmt.Sprintf("push manifest %s/%s%s", repo(), man(), tag())
	case opRetag:
		s = fmt.Sprintf("tag %s/%s%s", repo(), man(), tag())
	case opDeleteTag:
		s = fmt.Sprintf("delete tag %s%s", repo(), tag())
	case opDelete:
		s = fmt.Sprintf("delete manifest %s/%s", repo(), man())
	case opPull:
		s = fmt.Sprintf("pull %s/%s", repo(), man())
	case opPullTag:
		s = fmt.Sprintf("pull %s%s", repo(), tag())
	case opPin:
		s = fmt.Sprintf("pin %s/%s", repo(), man())
	case opUnpin:
		s = fmt.Sprintf("unpin %s/%s", repo(), man())
	case opRestore:
		s = fmt.Sprintf("restore %s/%s", repo(), man())
	case opDated:
		s = fmt.Sprintf("report use of %s in %s, %d ago", dig(op.M), repo(), op.N)
	case opState:
		s = fmt.Sprintf("reporter %d states", op.R)
		for _, d := range []int8{op.M, op.B} {
			if d >= 0 {
				s += " " + dig(d)
			}
		}
	case opForget:
		s = fmt.Sprintf("forget reporter %d", op.R)
	case opAdvance:
		s = fmt.Sprintf("%d pass", op.N)
	case opJump:
		s = fmt.Sprintf("clock jumps %+d", op.N)
	case opOpen:
		s = "open an interval for " + c.repos[manualScope]
	case opClose:
		s = "close the interval"
	case opCrash:
		s = "crash"
	case opStop:
		s = "stop"
	case opStart:
		s = "start"
	case opTick:
		s = "tick"
		if len(op.Sub) > 0 {
			var subs []string
			for _, o := range op.Sub {
				subs = append(subs, l.print(o))
			}
			s += fmt.Sprintf(" (before change %d: %s)", op.N, strings.Join(subs, "; "))
		}
	case opBegin:
		s = "plan"
	case opNext:
		s = "do the next part"
	case opCollect:
		s = "collect"
	case opReconcile:
		s = "reconcile"
	}
	if op.Crash > 0 {
		when := "before"
		if op.Crash%2 == 0 {
			when = "after"
		}
		s += fmt.Sprintf(" [crash %s commit %d]", when, (op.Crash+1)/2)
	}
	return s
}

// Print lists a history, one step a line.
func (l *Lab) Print(ops []Op) string {
	var b strings.Builder
	for i, op := range ops {
		fmt.Fprintf(&b, "%4d  %s\n", i+1, l.print(op))
	}
	return b.String()
}

// A Sim is a world and who watches it.
type Sim struct {
	w World
	o Oracle
	// Blind: the oracle says nothing.
	Blind bool
	// Seen counts what happened, to show that histories are not idle.
	Seen Tally
}

// A Tally counts events.
type Tally struct {
	Expired, Revived, Deleted, Swept, Collected, Crashes, CameBetween int
}

func (t *Tally) add(o Tally) {
	t.Expired += o.Expired
	t.Revived += o.Revived
	t.Deleted += o.Deleted
	t.Swept += o.Swept
	t.Collected += o.Collected
	t.Crashes += o.Crashes
	t.CameBetween += o.CameBetween
}

func (t *Tally) note(before, after *World) {
	for r := range after.repo {
		for m := range after.repo[r].man {
			a, b := &before.repo[r].man[m], &after.repo[r].man[m]
			switch {
			case a.there && !b.there:
				t.Swept++
			case !a.there || a.state == b.state:
			case b.state == content.Expired:
				t.Expired++
			case b.state == content.Deleted:
				t.Deleted++
			default:
				t.Revived++
			}
		}
	}
	for b := range after.row {
		if before.row[b] && !after.row[b] {
			t.Collected++
		}
	}
}

// NewSim returns an empty store.
func NewSim() *Sim { return &Sim{w: newWorld(), o: newOracle()} }

// over reports that the small universe has no more room for this history.
func (s *Sim) over() bool { return s.w.broken || s.o.over }
