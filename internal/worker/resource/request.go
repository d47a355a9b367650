package resource

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"cairn.dev/cairn/internal/task"
)

// Annotation says of an object which task made it, in which try: an attempt
// after one that was lost knows it by that.
const Annotation = "cairn.dev/task"

// manager is who owns the fields that are written.
const manager = "cairn"

// request is one task.
type request struct {
	*task.Resource
	api *api
	key string // the same for all attempts of one try
	say func(format string, args ...any)

	kind      *kind
	namespace string
	manifest  object // nil for a patch that is a list
	seen      string // how the object was when it was last looked at
}

// run does what is asked, and returns the object as it was last seen; nil where
// there is none.
func (q *request) run(ctx context.Context) (object, error) {
	if len(q.Manifest) > task.MaxManifest {
		return nil, fmt.Errorf("the manifest has %d bytes, at most %d", len(q.Manifest), task.MaxManifest)
	}
	until, err := parseConditions(q.Success, q.Failure)
	if err != nil {
		return nil, err
	}
	name, err := q.target(ctx)
	if err != nil {
		return nil, err
	}
	if name == "" && !(q.Action == "delete" && (q.Selector != "" || q.All)) && !(q.Action == "create" && at(q.manifest, "metadata", "generateName") != "") {
		return nil, fmt.Errorf("%s %s: it names no object: write metadata.name", q.Action, q.kind.resource)
	}
	o, err := q.act(ctx, name)
	if err != nil {
		return nil, q.explain(name, err)
	}
	if q.Action == "delete" || o == nil {
		return nil, nil
	}
	return q.await(ctx, o, until)
}

// target finds out which objects are meant, and returns the name of the one,
// if it is one.
func (q *request) target(ctx context.Context) (name string, err error) {
	if q.Patch != "json" && len(q.Manifest) > 0 {
		if err := decode(q.Manifest, &q.manifest); err != nil {
			return "", fmt.Errorf("the manifest is no object: %w", err)
		}
	}
	version, kind := at(q.manifest, "apiVersion"), at(q.manifest, "kind")
	switch {
	case q.Kind != "":
		q.kind, err = q.api.called(ctx, q.Kind, q.say)
	case version == "" || kind == "":
		return "", errors.New("the manifest has to have apiVersion and kind")
	case kind == "List" && version == "v1":
		return "", errors.New("the manifest is a list: a task deals with one object")
	default:
		q.kind, err = q.api.kindOf(ctx, version, kind, q.say)
	}
	if err != nil {
		return "", err
	}
	if name = q.Name; name == "" && q.Selector == "" && !q.All {
		name = at(q.manifest, "metadata", "name")
	}
	own := at(q.manifest, "metadata", "namespace")
	switch {
	case own != "" && q.Namespace != "" && own != q.Namespace:
		return "", fmt.Errorf("the object is of namespace %s, and namespace %s is asked for", own, q.Namespace)
	case own != "":
		q.namespace = own
	case q.Namespace != "":
		q.namespace = q.Namespace
	default:
		q.namespace = q.api.account.Namespace
	}
	return name, check(name, q.namespace)
}

// check keeps names from being more than a part of a path.
func check(names ...string) error {
	for _, s := range names {
		if s == "." || s == ".." || len(s) > 253 || strings.ContainsAny(s, "/%?#") {
			return fmt.Errorf("%.80q is no name of an object", s)
		}
	}
	return nil
}

// explain says what was tried, and what can be done about it.
func (q *request) explain(name string, err error) error {
	if _, is := errors.AsType[*refusal](err); !is {
		return err
	}
	cure := ""
	switch {
	case refused(err, http.StatusForbidden):
		cure = ": give the account that right by a Role and a RoleBinding, or name another account"
	case refused(err, http.StatusUnsupportedMediaType):
		cure = ": objects of this kind take patches of type merge and json"
	}
	return fmt.Errorf("%s %s: %w%s", q.Action, named(q.kind, q.namespace, name), err, cure)
}

// path is where an object is.
func (q *request) path(name string) string {
	return q.kind.collection(q.namespace) + "/" + url.PathEscape(name)
}

// query are the parameters of a request that writes.
func (q *request) query() url.Values {
	v := url.Values{"fieldManager": {manager}, "fieldValidation": {"Strict"}}
	if q.Lenient {
		v.Set("fieldValidation", "Ignore")
	}
	return v
}

// act makes the request itself.
func (q *request) act(ctx context.Context, name string) (o object, err error) {
	switch q.Action {
	case "get":
		if o, err = q.get(ctx, name); q.Missing && refused(err, http.StatusNotFound) {
			q.say("%s is not there", named(q.kind, q.namespace, name))
			return nil, nil
		}
		return o, err
	case "create":
		return q.create(ctx, name)
	case "apply":
		q.own()
		v := q.query()
		v.Set("force", "true") // the fields of the manifest are this task's from now on
		return q.write(ctx, "applied", call{method: http.MethodPatch, path: q.path(name), query: v, form: "application/apply-patch+yaml"}, q.manifest)
	case "patch":
		return q.patch(ctx, name)
	case "replace":
		return q.replace(ctx, name)
	case "delete":
		return nil, q.remove(ctx, name)
	}
	return nil, fmt.Errorf("action %.40q: there are get, create, apply, patch, replace and delete", q.Action)
}

func (q *request) get(ctx context.Context, name string) (o object, err error) {
	c := call{method: http.MethodGet, path: q.path(name)}
	if q.Subresource != "" {
		c.path += "/" + q.Subresource
	}
	err = q.api.do(ctx, c, &o, q.say)
	return o, err
}

// write sends an object, and says what became of it.
func (q *request) write(ctx context.Context, done string, c call, body object) (o object, err error) {
	if c.body, err = json.Marshal(body); err != nil {
		return nil, err
	}
	if err = q.api.do(ctx, c, &o, q.say); err == nil {
		q.say("%s %s", named(q.kind, q.namespace, at(o, "metadata", "name")), done)
	}
	return o, err
}

// create makes an object. One that an earlier attempt of the same try has made
// is taken for it, because the answer to that attempt, or all of it, was lost.
func (q *request) create(ctx context.Context, name string) (object, error) {
	if name == "" {
		name = q.generated()
		q.meta()["name"] = name
		delete(q.meta(), "generateName")
	}
	q.own()
	notes, _ := q.meta()["annotations"].(map[string]any)
	notes = maps.Clone(notes)
	if notes == nil {
		notes = map[string]any{}
	}
	notes[Annotation] = q.key
	q.meta()["annotations"] = notes
	o, err := q.write(ctx, "created", call{method: http.MethodPost, path: q.kind.collection(q.namespace), query: q.query(), form: "application/json"}, q.manifest)
	if !refused(err, http.StatusConflict) {
		return o, err
	}
	there, getErr := q.get(ctx, name)
	switch {
	case getErr == nil && at(there, "metadata", "annotations", Annotation) == q.key:
		q.say("%s was created by an earlier attempt", named(q.kind, q.namespace, name))
		return there, nil
	case getErr != nil && !refused(getErr, http.StatusNotFound) && !refused(getErr, http.StatusForbidden):
		return nil, getErr
	}
	return nil, err
}

// generated is the name of an object that has none: the same for all attempts
// of one try.
func (q *request) generated() string {
	sum := sha256.Sum256([]byte(q.key))
	tail := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5]))
	base := at(q.manifest, "metadata", "generateName")
	return base[:min(len(base), 63-len(tail))] + tail // names are labels, too, at places
}

// meta is the metadata of the manifest.
func (q *request) meta() object {
	m, ok := q.manifest["metadata"].(map[string]any)
	if !ok {
		m = object{}
		q.manifest["metadata"] = m
	}
	return m
}

// own makes the object go with its owner.
func (q *request) own() {
	if q.Owner == nil {
		return
	}
	refs, _ := q.meta()["ownerReferences"].([]any)
	q.meta()["ownerReferences"] = append(refs, map[string]any{"apiVersion": q.Owner.APIVersion, "kind": q.Owner.Kind, "name": q.Owner.Name, "uid": q.Owner.UID})
}

// forms are the media types of patches.
var forms = map[string]string{"": "application/strategic-merge-patch+json", "strategic": "application/strategic-merge-patch+json", "merge": "application/merge-patch+json", "json": "application/json-patch+json"}

func (q *request) patch(ctx context.Context, name string) (o object, err error) {
	form, ok := forms[q.Patch]
	if !ok {
		return nil, fmt.Errorf("a patch of type %.40q: there are strategic, merge and json", q.Patch)
	}
	c := call{method: http.MethodPatch, path: q.path(name), query: q.query(), form: form, body: q.Manifest}
	if q.Subresource != "" {
		c.path += "/" + q.Subresource
	}
	if err = q.api.do(ctx, c, &o, q.say); err == nil {
		q.say("%s patched", named(q.kind, q.namespace, name))
	}
	return o, err
}

// replace puts an object in the place of another, whatever version that has.
func (q *request) replace(ctx context.Context, name string) (object, error) {
	q.own()
	pinned := at(q.manifest, "metadata", "resourceVersion") != ""
	for n := 0; ; n++ {
		if !pinned {
			there, err := q.get(ctx, name)
			if err != nil {
				return nil, err
			}
			q.meta()["resourceVersion"] = at(there, "metadata", "resourceVersion")
		}
		o, err := q.write(ctx, "replaced", call{method: http.MethodPut, path: q.path(name), query: q.query(), form: "application/json"}, q.manifest)
		if pinned || n == 5 || !refused(err, http.StatusConflict) {
			return o, err
		}
	}
}
