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

// images counts who is to run which image: references as they are written,
// and the workflows that name them.
type images map[string]map[string]int

func (m images) add(g *workflow.Graph)    { m.count(g, 1) }
func (m images) remove(g *workflow.Graph) { m.count(g, -1) }

func (m images) count(g *workflow.Graph, by int) {
	name := g.Name
	if name == "" {
		name = "run"
	}
	for _, ref := range imagesOf(g) {
		who := m[ref]
		if who == nil {
			who = map[string]int{}
			m[ref] = who
		}
		if who[name] += by; who[name] <= 0 {
			delete(who, name)
		}
		if len(who) == 0 {
			delete(m, ref)
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
	if s.d.Resolve == nil {
		return nil, nil
	}
	s.mu.RLock()
	all := make(map[string][]string, len(s.images))
	for ref, who := range s.images {
		all[ref] = slices.Sorted(maps.Keys(who))
	}
	s.mu.RUnlock()
	out := map[image.Digest][]usage.Use{}
	for _, ref := range slices.Sorted(maps.Keys(all)) {
		own, digest, err := s.d.Resolve(ctx, ref)
		if errors.Is(err, ErrNotFound) || err == nil && (own != repository || digest == "") {
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
