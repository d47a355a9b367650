package terraform

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"cairn.dev/cairn/internal/code"
)

// Bounds of what a Reader remembers.
const (
	maxParsed  = 2 << 20 // bytes of files whose trees are kept; a tree is some thirty times that
	maxGlances = 400_000 // files
	maxAnswers = 3       // of one root module: editors try a few variants of a tree
)

// parsed keeps the files that were parsed last.
type parsed struct {
	mu    sync.Mutex
	files map[fileKey]*list.Element
	order list.List // of *parsedFile, the newest first
	size  int
}

type fileKey struct {
	path string
	sum  [sha256.Size]byte
}

type parsedFile struct {
	key    fileKey
	source *source
	size   int
}

// get returns the file's source. Two who ask at once may both parse it.
func (p *parsed) get(f code.File, sinks map[string]bool) *source {
	k := fileKey{f.Path, f.Sum}
	p.mu.Lock()
	if e, ok := p.files[k]; ok {
		p.order.MoveToFront(e)
		p.mu.Unlock()
		return e.Value.(*parsedFile).source
	}
	p.mu.Unlock()
	s := parse(f, sinks)
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.files[k]; ok {
		return e.Value.(*parsedFile).source
	}
	if p.files == nil {
		p.files = map[fileKey]*list.Element{}
	}
	size := len(f.Data) + 512
	p.files[k] = p.order.PushFront(&parsedFile{k, s, size})
	for p.size += size; p.size > maxParsed && p.order.Len() > 1; {
		last := p.order.Back()
		old := p.order.Remove(last).(*parsedFile)
		delete(p.files, old.key)
		p.size -= old.size
	}
	return s
}

// glances keeps what was seen of files at a glance. When there are too many
// it begins anew.
type glances struct {
	mu    sync.Mutex
	facts map[[sha256.Size]byte]facts
}

func (g *glances) get(f code.File, types map[string]bool) facts {
	g.mu.Lock()
	known, ok := g.facts[f.Sum]
	g.mu.Unlock()
	if ok {
		return known
	}
	known = glance(f.Data, types)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.facts == nil || len(g.facts) >= maxGlances {
		g.facts = map[[sha256.Size]byte]facts{}
	}
	g.facts[f.Sum] = known
	return known
}

// An answer is what the evaluation of one root module said.
type answer struct {
	seen     witness
	images   []code.Image
	problems []code.Problem
	reached  map[string]bool
}

// answers keeps some of each root module, the newest first.
type answers struct {
	mu sync.Mutex
	of map[answerKey][]*answer
}

type answerKey struct{ root, environment string }

func (a *answers) get(k answerKey, t *code.Tree, g *graph) *answer {
	a.mu.Lock()
	list := a.of[k]
	a.mu.Unlock()
	for _, known := range list {
		if known.seen.holds(t, g) {
			return known
		}
	}
	return nil
}

func (a *answers) put(k answerKey, new *answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[answerKey][]*answer{}
	}
	list := append([]*answer{new}, a.of[k]...)
	a.of[k] = list[:min(len(list), maxAnswers)]
}
