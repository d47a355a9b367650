package reap

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

// gar is the driver of Google's Artifact Registry, which does not delete an
// image that has tags by the distribution protocol. Names there read
// project/repository/image.
type gar struct {
	rest     restClient
	clock    clock.Clock
	endpoint string
	location string
	token    string
}

func (g *gar) call(ctx context.Context, method, path string, query url.Values, out any) error {
	u := g.endpoint + "/v1/" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	return g.rest.do(req, out)
}

// parent is the resource of project/repository.
func (g *gar) parent(project, repository string) string {
	return "projects/" + url.PathEscape(project) + "/locations/" + g.location + "/repositories/" + url.PathEscape(repository)
}

func (g *gar) repositories(ctx context.Context, globs []string) ([]string, error) {
	var of []string // project/repository
	for _, s := range globs {
		p := strings.SplitN(s, "/", 3)
		if len(p) < 3 || strings.ContainsAny(p[0]+p[1], "*?") {
			return nil, badRequest("Artifact Registry lists images of one repository at a time: write --repository 'project/repository/**'")
		}
		if r := p[0] + "/" + p[1]; !slices.Contains(of, r) {
			of = append(of, r)
		}
	}
	if len(of) == 0 {
		return nil, badRequest("Artifact Registry lists images of one repository at a time: write --repository 'project/repository/**'")
	}
	var names []string
	for _, r := range of {
		project, repository, _ := strings.Cut(r, "/")
		query := url.Values{"pageSize": {"1000"}}
		for n := 0; ; n++ {
			if n == maxPages {
				return nil, upstream.Unreachablef("Artifact Registry", "has more than %d pages of images", maxPages)
			}
			var out struct {
				Packages []struct {
					Name string `json:"name"`
				} `json:"packages"`
				NextPageToken string `json:"nextPageToken"`
			}
			if err := g.call(ctx, http.MethodGet, g.parent(project, repository)+"/packages", query, &out); err != nil {
				return nil, err
			}
			for _, p := range out.Packages {
				_, last, _ := strings.Cut(p.Name, "/packages/")
				name, err := url.PathUnescape(last)
				if err != nil || name == "" {
					return nil, upstream.Unreachablef("Artifact Registry", "lists %.200q, which is no image", p.Name)
				}
				names = append(names, r+"/"+name)
			}
			if out.NextPageToken == "" {
				break
			}
			query.Set("pageToken", out.NextPageToken)
		}
	}
	return names, nil
}

// operation is work of the API that goes on after its answer.
type operation struct {
	Name  string `json:"name"`
	Done  bool   `json:"done"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

func (g *gar) delete(ctx context.Context, repo string, d image.Digest) error {
	p := strings.SplitN(repo, "/", 3)
	if len(p) < 3 {
		return upstream.Unreachablef("Artifact Registry", "has names of the form project/repository/image, and not %s", repo)
	}
	var op operation
	// force: with its tags.
	err := g.call(ctx, http.MethodDelete, g.parent(p[0], p[1])+"/packages/"+url.PathEscape(p[2])+"/versions/"+string(d), url.Values{"force": {"true"}}, &op)
	for try := 0; err == nil && !op.Done; try++ {
		if try == 20 {
			return errTakesLong
		}
		if err := pauseFor(ctx, g.clock, try); err != nil {
			return err
		}
		name := op.Name
		if !strings.HasPrefix(name, "projects/") || strings.ContainsAny(name, "?#") || strings.Contains(name, "..") {
			return upstream.Unreachablef("Artifact Registry", "names an operation %.100q", name)
		}
		op = operation{}
		err = g.call(ctx, http.MethodGet, name, nil, &op)
	}
	if err != nil {
		return err
	}
	if op.Error != nil {
		return upstream.Unreachablef("Artifact Registry", "does not delete it: %s (%d)", op.Error.Message, op.Error.Code)
	}
	return nil
}
