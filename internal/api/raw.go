package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// raw registers a route whose body huma does not read, because it is more than
// JSON; I describes it in its most usual form.
func raw[I, O any](a *API, o huma.Operation, contentType string, handle func(*http.Request) (*O, error)) {
	schemas := a.huma.OpenAPI().Components.Schemas
	body := &huma.Schema{Type: "string", Format: "binary"}
	if t := reflect.TypeFor[I](); t != reflect.TypeFor[bytesBody]() {
		body = schemas.Schema(t, true, t.Name())
	}
	answer := reflect.TypeFor[O]()
	o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{contentType: {Schema: body}}}
	o.Responses = map[string]*huma.Response{"200": {Description: o.Summary, Content: map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(answer, true, answer.Name())}}}}
	a.huma.OpenAPI().AddOperation(&o)
	a.mux.HandleFunc(o.Method+" "+o.Path, func(w http.ResponseWriter, r *http.Request) {
		out, err := handle(r)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
}

// bytesBody stands for a body that is any bytes.
type bytesBody struct{}

// fail answers with an error, and the headers that come with it.
func fail(w http.ResponseWriter, err error) {
	if h, ok := errors.AsType[huma.HeadersError](err); ok {
		for k, v := range h.GetHeaders() {
			w.Header()[k] = v
		}
	}
	writeProblem(w, asProblem(err))
}

// readBody reads a body of at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, limit))
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(http.StatusRequestEntityTooLarge, "hand long lists in as an upload", "the request has more than %d bytes", e.Limit)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "send it again, whole", "read the request: %v", err)
	}
	return b, nil
}
