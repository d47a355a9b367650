package work

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/internal/workflow"
)

// images knows who is to run which image: references as they are written, the
// workflows that name them, and what they may be called in our registry.
type images struct {
	names func(reference string) []string // may be nil: nothing is ours
	who   map[string]map[string]int       // reference -> workflow -> how often
	refs  map[string]map[string]bool      // repository of ours -> references
}

func newImages(names func(string) []string) images {
	return images{names, map[string]map[string]int{}, map[string]map[string]bool{}}
}

func (m *images) add(g *workflow.Graph)    { m.count(g, 1) }
func (m *images) remove(g *workflow.Graph) { m.count(g, -1) }

func (m *images) count(g *workflow.Graph, by int) {
	if m.names == nil {
		return
	}
	name := g.Name
	if name == "" {
		name = "run"
	}
	for _, ref := range imagesOf(g) {
		who := m.who[ref]
		if who == nil {
			who = map[string]int{}
			m.who[ref] = who
			for _, own := range m.names(ref) {
				if m.refs[own] == nil {
					m.refs[own] = map[string]bool{}
				}
				m.refs[own][ref] = true
			}
		}
		if who[name] += by; who[name] <= 0 {
			delete(who, name)
		}
		if len(who) > 0 {
			continue
		}
		delete(m.who, ref)
		for _, own := range m.names(ref) {
			if delete(m.refs[own], ref); len(m.refs[own]) == 0 {
				delete(m.refs, own)
			}
		}
	}
}

// imagesOf are the references that the workflow names.
func imagesOf(g *workflow.Graph) (out []string) {
	for _, t := range g.Templates {
		if t.Leaf != nil {
			out = append(out, t.Leaf.Images()...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// InUse implements the owner of uses that retention asks: what queued, running
// and scheduled work will run of the repository. A tag that is not there is no
// use; anything else that keeps an image from being found is an error, so that
// nothing is deleted meanwhile.
func (s *Server) InUse(ctx context.Context, repository string) (map[image.Digest][]usage.Use, error) {
	s.mu.RLock()
	all := make(map[string][]string, len(s.images.refs[repository]))
	for ref := range s.images.refs[repository] {
		all[ref] = slices.Sorted(maps.Keys(s.images.who[ref]))
	}
	s.mu.RUnlock()
	out := map[image.Digest][]usage.Use{}
	for _, ref := range slices.Sorted(maps.Keys(all)) {
		digest, err := s.d.Digest(ctx, repository, ref)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find %s, which work will run: %w", ref, err)
		}
		for _, name := range all[ref] {
			out[digest] = append(out[digest], usage.Use{Digest: digest, Repository: repository, Source: usage.Run, Subject: name, At: s.d.Clock.Now(), Now: true})
		}
	}
	return out, nil
}
