package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/errgroup"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts"
	"cairn.dev/cairn/internal/workflow"
)

// Artifacts keeps files of runs. *artifacts.Store is one.
type Artifacts interface {
	Upload(ctx context.Context, upload string, r io.Reader) (task.Produced, error)
	Adopt(ctx context.Context, run, upload string) error
	OpenOf(ctx context.Context, run, digest string) (blob.Reader, error)
}

const (
	maxUpload = 64 << 30
	maxFiles  = 100_000 // of one submission
	maxIDs    = 100
	looking   = 8 // at files, at a time
)

func (a *API) fileRoutes() {
	upload := op("upload-file", http.MethodPost, "/api/v1/uploads", "runs", "Hand in a file for a run that is submitted within the hour", 404, 413, 507)
	upload.Description = "The body is the file. What is answered is named in a submission. Several files go under one id when the query names it: upload=ID."
	upload.Parameters = []*huma.Param{{Name: "upload", In: "query", Schema: &huma.Schema{Type: "string"}}}
	raw[bytesBody, wire.Upload](a, upload, "application/octet-stream", a.upload)

	get := op("get-artifact", http.MethodGet, "/api/v1/runs/{id}/artifacts/{node}/{name}", "runs", "Read a file that a node of a run left; a folder is a tar", 404)
	for _, name := range []string{"id", "node", "name"} {
		get.Parameters = append(get.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: "string"}})
	}
	get.Responses = map[string]*huma.Response{"200": {Description: get.Summary,
		Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}}
	a.huma.OpenAPI().AddOperation(&get)
	a.mux.HandleFunc("GET "+get.Path, a.getArtifact)
}

func (a *API) upload(r *http.Request) (*wire.Upload, error) {
	if err := a.mayRunAny(r.Context()); err != nil {
		return nil, err
	}
	if a.Artifacts == nil {
		return nil, refuse(http.StatusNotFound, "", "this server keeps no files of runs")
	}
	id := r.URL.Query().Get("upload")
	if id == "" {
		id = artifacts.NewUpload()
	}
	u, err := a.Artifacts.Upload(r.Context(), id, http.MaxBytesReader(nil, r.Body, maxUpload))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(http.StatusRequestEntityTooLarge, "", "an upload has at most %d bytes", int64(maxUpload))
	}
	if errors.Is(err, artifacts.ErrInvalid) {
		return nil, refuse(http.StatusBadRequest, "leave upload out for a new one", "%v", err)
	}
	if err != nil {
		return nil, a.problem(err, "store an upload")
	}
	return &wire.Upload{ID: id, Digest: u.Digest, Size: u.Size}, nil
}

// files are the uploads of a submission as values, and what makes its run hold
// them.
func (a *API) files(s *wire.Submission) (map[string]workflow.Value, func(context.Context, string) error, error) {
	out, all, ids := map[string]workflow.Value{}, []*workflow.File(nil), map[string]bool{}
	take := func(u wire.Upload) *workflow.File {
		f := &workflow.File{Name: u.Name, Digest: u.Digest}
		all = append(all, f)
		ids[u.ID] = true
		return f
	}
	for k, u := range s.Files {
		out[k] = take(u)
	}
	for k, list := range s.FileLists {
		if _, ok := out[k]; ok {
			return nil, nil, refuse(http.StatusBadRequest, "", "the parameter %q is given twice, as a file and as a list of files", k)
		}
		v := make([]any, len(list))
		for i, u := range list {
			v[i] = take(u)
		}
		out[k] = v
	}
	switch {
	case len(all) == 0:
		return nil, nil, nil
	case len(all) > maxFiles:
		return nil, nil, refuse(http.StatusRequestEntityTooLarge, "put them into an archive, or into an object store that the workflow lists", "%d files in one submission: the limit is %d", len(all), maxFiles)
	case len(ids) > maxIDs:
		return nil, nil, refuse(http.StatusRequestEntityTooLarge, "hand the files in under the id of the first", "files of %d uploads in one submission: the limit is %d", len(ids), maxIDs)
	case a.Artifacts == nil:
		return nil, nil, refuse(http.StatusNotFound, "", "this server keeps no files of runs")
	}
	return out, func(ctx context.Context, run string) error { return a.adopt(ctx, run, ids, all) }, nil
}

// adopt makes a run hold uploads, and looks whether the files of its arguments
// are among them: the work server itself reads lists by their digests, whoever
// has them.
func (a *API) adopt(ctx context.Context, run string, ids map[string]bool, all []*workflow.File) error {
	for id := range ids {
		err := a.Artifacts.Adopt(ctx, run, id)
		if errors.Is(err, artifacts.ErrNotFound) || errors.Is(err, artifacts.ErrInvalid) {
			return refuse(http.StatusUnprocessableEntity, "hand the files in again: an upload waits for an hour", "there is no upload %.40q", id)
		}
		if err != nil {
			return a.problem(err, "take over an upload")
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(looking)
	for _, f := range all {
		g.Go(func() error {
			r, err := a.Artifacts.OpenOf(ctx, run, f.Digest)
			if errors.Is(err, artifacts.ErrNotFound) || errors.Is(err, artifacts.ErrInvalid) {
				return refuse(http.StatusUnprocessableEntity, "hand the file in again", "no upload of these has %.100q %s", f.Digest, f.Name)
			}
			if err != nil {
				return a.problem(err, "look at an upload")
			}
			f.Size = r.Size()
			return r.Close()
		})
	}
	return g.Wait()
}

// getArtifact streams a file of a run.
func (a *API) getArtifact(w http.ResponseWriter, r *http.Request) {
	f, file, err := a.artifact(r)
	if err != nil {
		fail(w, err)
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream") // whatever it is: it comes from somebody's program
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", attachment(r.PathValue("name"), file)))
	h.Set("ETag", `"`+file.Digest+`"`)
	if file.Folder {
		h.Set("Content-Type", "application/x-tar")
	}
	pw := &patientResponse{w, patientWriter{w, http.NewResponseController(w)}}
	defer pw.done()
	http.ServeContent(pw, r, "", time.Time{}, f)
}

func (a *API) artifact(r *http.Request) (blob.Reader, *workflow.File, error) {
	ctx, id, node, name := r.Context(), r.PathValue("id"), r.PathValue("node"), r.PathValue("name")
	if _, err := a.seen(ctx, id, "look at run"); err != nil {
		return nil, nil, err
	}
	v, err := a.Work.Node(ctx, id, node)
	if err != nil {
		return nil, nil, a.runProblem(err, "look at node "+node)
	}
	files, _ := v.Outputs["artifacts"].(map[string]any)
	file, ok := files[name].(*workflow.File)
	switch {
	case !ok:
		var names []string
		for k := range files {
			names = append(names, k)
		}
		return nil, nil, refuse(http.StatusNotFound, "it has: "+strings.Join(names, ", "), "node %s of run %s left no file %.100q", node, id, name)
	case file.Digest == "" || a.Artifacts == nil:
		return nil, nil, refuse(http.StatusNotFound, "", "%s of node %s is not kept here, but where the workflow put it", name, node)
	}
	f, err := a.Artifacts.OpenOf(ctx, id, file.Digest)
	if errors.Is(err, artifacts.ErrNotFound) {
		return nil, nil, refuse(http.StatusNotFound, "", "%s of node %s is gone", name, node)
	}
	if err != nil {
		return nil, nil, a.problem(err, "read %s of run %s", name, id)
	}
	return f, file, nil
}

// attachment is what a browser is to call a file.
func attachment(name string, f *workflow.File) string {
	if f.Name != "" {
		name = path.Base(f.Name)
	}
	if f.Folder {
		name += ".tar"
	}
	return name
}

// patientResponse is a response whose client has to keep reading.
type patientResponse struct {
	http.ResponseWriter
	patientWriter
}

// Write implements io.Writer.
func (p *patientResponse) Write(b []byte) (int, error) { return p.patientWriter.Write(b) }
