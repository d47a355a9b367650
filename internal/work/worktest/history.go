package worktest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Kind is what a step of a history does.
type Kind uint8

// The kinds of steps.
const (
	Submit   Kind = iota // a random workflow, of the seed N
	Ask                  // a worker reports up to N of what it holds, and takes up to M
	Beat                 // a worker says what it holds
	Die                  // a worker is gone, with all it held; another comes in its place
	Pass                 // N seconds
	Jump                 // the wall clock moves by N minutes, and no time passes
	Cancel               // a run, at once when M is odd
	Pause                // a run
	Continue             // a run
	Resume               // the first node of a run that waits
	Retry                // what failed of a run that has ended
	Back                 // a worker gives N tasks back
	nKinds
)

var kindNames = [...]string{"submit", "ask", "beat", "die", "pass", "jump", "cancel", "pause", "continue", "resume", "retry", "back"}

// Loss says what goes wrong with a step.
type Loss uint8

// What may go wrong.
const (
	Nothing     Loss = iota
	Request          // what is said does not arrive
	Answer           // what is answered does not
	CrashBefore      // the server dies before the commit
	CrashAfter       // and after it
	nLosses
)

var lossNames = [...]string{"", "request lost", "answer lost", "crash before the commit", "crash after the commit"}

// A Step is one thing that happens.
type Step struct {
	Kind Kind
	Who  int // worker, or run in the order of their submission
	N, M int
	Loss Loss
	Luck uint64 // decides how tasks end
}

func (s Step) String() string {
	out := fmt.Sprintf("%s %d (%d, %d) luck %d", kindNames[s.Kind], s.Who, s.N, s.M, s.Luck%1000)
	if s.Loss != Nothing {
		out += ": " + lossNames[s.Loss]
	}
	return out
}

// Workers is how many workers there are, Runs how many runs at most.
const (
	Workers = 3
	Runs    = 3
)

// History is the steps of a seed.
func History(seed uint64, n int) []Step {
	rng := rand.New(rand.NewPCG(seed, 3))
	steps := []Step{{Kind: Submit, N: rng.IntN(1 << 20)}}
	for len(steps) < n {
		s := Step{Kind: Ask, Who: rng.IntN(Workers), N: rng.IntN(5), M: rng.IntN(5), Luck: rng.Uint64()}
		switch p := rng.IntN(100); {
		case p < 55:
		case p < 62:
			s.Kind = Beat
		case p < 66:
			s.Kind = Die
		case p < 82:
			s.Kind, s.N = Pass, rng.IntN(25)
		case p < 84:
			s.Kind, s.N = Jump, rng.IntN(200)-100
		case p < 85:
			s.Kind = Cancel
		case p < 86:
			s.Kind = Pause
		case p < 88:
			s.Kind = Continue
		case p < 91:
			s.Kind = Resume
		case p < 93:
			s.Kind = Retry
		case p < 96:
			s.Kind = Back
		default:
			s.Kind, s.N = Submit, rng.IntN(1<<20)
		}
		if rng.IntN(12) == 0 {
			s.Loss = Loss(1 + rng.IntN(int(nLosses)-1))
		}
		steps = append(steps, s)
	}
	return steps
}

// Shrink shortens a history as far as it goes on failing.
func Shrink(steps []Step, fails func([]Step) bool) []Step {
	for {
		before := len(steps)
		for n := max(len(steps)/2, 1); n > 0; n /= 2 {
			for i := 0; i < len(steps); {
				if rest := slices.Concat(steps[:i], steps[min(i+n, len(steps)):]); fails(rest) {
					steps = rest
				} else {
					i += n
				}
			}
		}
		for i, s := range steps {
			if s.Loss != Nothing {
				next := slices.Clone(steps)
				if next[i].Loss = Nothing; fails(next) {
					steps = next
				}
			}
		}
		if len(steps) == before {
			return steps
		}
	}
}

// Print is a history as people read it.
func Print(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintln(&b, " ", s)
	}
	return b.String()
}
