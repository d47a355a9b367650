package forgetest

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
)

// A Fake answers for a forge over HTTP out of a Memory. It checks each request
// against what the forge's documentation says of it, and reports what the
// forge would not have understood as an error of the test.
type Fake struct {
	*httptest.Server
	Memory *Memory
	// Per is how many a page of a list has; small, so that pages are turned.
	Per int

	t   testing.TB
	mux *http.ServeMux

	mu    sync.Mutex
	fault func(*http.Request, int) *WireFault
	asked []string

	token  string // that the user has
	appKey *rsa.PublicKey
}

// A WireFault is what happens to a request on its way.
type WireFault struct {
	Status int         // what is answered; 0 breaks the connection
	Header http.Header // of the answer
	Body   string
	// Late: the request does what it does, and only its answer is lost.
	Late bool
}

func newFake(t testing.TB, m *Memory, token string) *Fake {
	f := &Fake{Memory: m, token: token, Per: 2, t: t, mux: http.NewServeMux()}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

// Fail sets what is asked before each request, which is the nth; nil lets all
// succeed.
func (f *Fake) Fail(fault func(r *http.Request, n int) *WireFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.asked = fault, nil
}

// Asked lists the requests since [Fake.Fail]: method and path.
func (f *Fake) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func (f *Fake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := len(f.asked)
	f.asked = append(f.asked, r.Method+" "+r.URL.EscapedPath())
	ask := f.fault
	f.mu.Unlock()
	if ask == nil {
		f.answer(w, r)
		return
	}
	fault := ask(r, n)
	if fault == nil {
		f.answer(w, r)
		return
	}
	if fault.Late {
		f.answer(httptest.NewRecorder(), r)
	}
	if fault.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	for k, v := range fault.Header {
		w.Header()[k] = v
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(fault.Status)
	_, _ = io.WriteString(w, fault.Body)
}

func (f *Fake) answer(w http.ResponseWriter, r *http.Request) {
	if _, pattern := f.mux.Handler(r); pattern == "" {
		f.t.Errorf("%s %s: the forge has no such path", r.Method, r.URL.EscapedPath())
	}
	if r.Header.Get("User-Agent") == "" {
		f.t.Errorf("%s %s: no User-Agent", r.Method, r.URL.Path)
	}
	f.mux.ServeHTTP(w, r)
}

// query checks that a request has no query but these.
func (f *Fake) query(r *http.Request, allowed ...string) {
	for k := range r.URL.Query() {
		if !slices.Contains(allowed, k) {
			f.t.Errorf("%s %s: the forge knows no %s=%s", r.Method, r.URL.Path, k, r.URL.Query().Get(k))
		}
	}
}

// body reads a request's JSON, which has these fields and no others.
func body[T any](f *Fake, r *http.Request) (v T) {
	if t := r.Header.Get("Content-Type"); t != "application/json" {
		f.t.Errorf("%s %s: Content-Type %q", r.Method, r.URL.Path, t)
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		f.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	return v
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// fields is JSON made by hand.
type fields = map[string]any

// page replies with one page of a list, and the way to the next.
func page[T any](f *Fake, w http.ResponseWriter, r *http.Request, all []T) {
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	n = max(n, 1)
	from := min((n-1)*f.Per, len(all))
	to := min(from+f.Per, len(all))
	if to < len(all) {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(n+1))
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next", <%s%s?page=1>; rel="first"`, f.URL, r.URL.EscapedPath(), q.Encode(), f.URL, r.URL.EscapedPath()))
	}
	reply(w, http.StatusOK, append([]T{}, all[from:to]...))
}

// statusOf is how forges answer what a Memory refuses.
func statusOf(err error) int {
	switch {
	case errors.Is(err, forge.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, forge.ErrForbidden), errors.Is(err, forge.ErrArchived):
		return http.StatusForbidden
	case errors.Is(err, forge.ErrMoved), errors.Is(err, forge.ErrExists):
		return http.StatusConflict
	case errors.Is(err, forge.ErrInvalid):
		return http.StatusUnprocessableEntity
	}
	return http.StatusInternalServerError
}

func refuse(w http.ResponseWriter, err error) {
	reply(w, statusOf(err), fields{"message": err.Error()})
}

// receive takes a push as git's receive-pack does: the branch moves from where
// the client says it is, or not at all.
func (m *Memory) receive(repository string, move object.Move, objects []object.Object) (refused string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.repos[repository]
	if r == nil {
		return "no such repository"
	}
	if r.writable(move.Branch) != nil {
		return "pre-receive hook declined"
	}
	zero := object.SHA1.Zero()
	at := r.branches[move.Branch]
	if at == "" {
		at = zero
	}
	if at != move.Old {
		return "failed to update ref"
	}
	if move.New == zero {
		m.move(r, move.Branch, "")
		return ""
	}
	for _, o := range objects {
		r.objects[object.SHA1.Hash(o)] = o
	}
	if _, err := r.files(move.New); err != nil {
		return "missing necessary objects"
	}
	m.move(r, move.Branch, move.New)
	return ""
}

// receive is git over HTTP, where user and token sign on.
func (f *Fake) receive(w http.ResponseWriter, r *http.Request, user string) {
	repository, ok := strings.CutSuffix(r.PathValue("path"), ".git/git-receive-pack")
	if !ok || r.Header.Get("Content-Type") != "application/x-git-receive-pack-request" {
		f.t.Errorf("POST %s (%s): the forge has no such path", r.URL.Path, r.Header.Get("Content-Type"))
		http.NotFound(w, r)
		return
	}
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+f.token)); r.Header.Get("Authorization") != want {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	move, objects, err := object.ReadPush(object.SHA1, b, 64<<20)
	if err != nil {
		f.t.Errorf("push: %v", err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	x, err := f.Memory.Repository(r.Context(), repository)
	switch {
	case err != nil:
		http.Error(w, "The project you were looking for could not be found.", http.StatusNotFound)
		return
	case x.Archived:
		http.Error(w, "You can't push code to an archived project.", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/x-git-receive-pack-result")
	_, _ = w.Write(object.Report(move, f.Memory.receive(repository, move, objects)))
}

// with runs do on a repository of the Memory.
func (m *Memory) with(repository string, do func(r *repo) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.repos[repository]
	if r == nil {
		return fmt.Errorf("%s: %w", repository, forge.ErrNotFound)
	}
	return do(r)
}

// Sign is the signature of a webhook of GitHub.
func Sign(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
