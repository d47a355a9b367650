package task

import "encoding/json"

// MaxManifest bounds [Resource.Manifest] in bytes: the API server takes little
// more than that.
const MaxManifest = 1 << 20

// A Resource is a request to the API server of the cluster that a worker's pod
// is in, made with the rights of the pod's service account and no others.
type Resource struct {
	// Action is get, create, apply, patch, replace or delete.
	Action string `json:"action"`
	// Manifest is an object as JSON, or what a patch changes.
	Manifest json.RawMessage `json:"manifest,omitempty"`
	// From is the name of an input of the task, whose text is the manifest, as
	// YAML; "" for Manifest.
	From string `json:"from,omitempty"`
	// Kind (a kind, resource or short name, with its group behind a dot or
	// without) and Name or Selector say which objects are meant where the manifest
	// does not; All takes all of that kind. Those without a namespace of their own
	// are of Namespace, or of the pod's when that is "".
	Kind      string `json:"kind,omitempty"`
	Name      string `json:"name,omitempty"`
	Selector  string `json:"selector,omitempty"`
	All       bool   `json:"all,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Patch is how a patch is put in: strategic (when empty), merge or json.
	Patch string `json:"patch,omitempty"`
	// Subresource is what of the object is meant, such as status; "" for itself.
	Subresource string `json:"subresource,omitempty"`
	// Success and Failure are conditions (package condition) that the object
	// meets sooner or later: all of Success, or any of Failure. Without them the
	// task ends with the request.
	Success string `json:"success,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Read says what is read from the object at the end, by the names of outputs.
	Read map[string]Reading `json:"read,omitempty"`
	// Owner is an object with which what is made goes; nil for none.
	Owner *Owner `json:"owner,omitempty"`
	// Try is how often the task was tried before at its user's expense. Attempts
	// of one try make one object.
	Try int `json:"try,omitempty"`
	// Propagation of a deletion: background (when empty), foreground or orphan.
	// Grace is its seconds; nil for the object's own.
	Propagation string `json:"propagation,omitempty"`
	Grace       *int64 `json:"grace,omitempty"`
	// Missing: what is not there is no failure of a get; it never is of a delete.
	Missing bool `json:"missing,omitempty"`
	// Lenient has the API server drop fields that it does not know; else it
	// refuses the object.
	Lenient bool `json:"lenient,omitempty"`
}

// A Reading is how a text is read from an object. One of Path and Filter is set.
type Reading struct {
	Path   string `json:"path,omitempty"`   // a template, see package jsonpath
	Filter string `json:"filter,omitempty"` // of jq; lines of what it gives
	// Default is taken where there is no object, or nothing is found in it.
	Default *string `json:"default,omitempty"`
}

// An Owner is an object as references to owners name it.
type Owner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// Object is the kind and the name of an output that the task of a [Resource] may
// have: the object as it was when the task ended, as JSON, without its
// managedFields; "" where there is none. The server makes of it what the workflow
// wants.
const Object = "object"
