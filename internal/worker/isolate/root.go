package isolate

// A Root describes a fresh root: what is mounted where, in this order. It is
// made by [Survey.Root], and carried out by a process in namespaces of its own.
type Root struct {
	// At is an empty folder, on which the root is put together.
	At string `json:"at"`
	// Layers are the overlays; the first is the root itself.
	Layers []Layer `json:"layers"`
	// Binds are files and folders that are shared with the container.
	Binds []Bind `json:"binds,omitempty"`
}

// A Layer is a folder seen through an overlay.
type Layer struct {
	Path  string   `json:"path"`  // in the new root
	Lower []string `json:"lower"` // folders, the topmost first
	// Upper is where its changes go; Work is what the kernel wants beside it.
	Upper string `json:"upper"`
	Work  string `json:"work"`
}

// A Bind shows something of the container in the new root.
type Bind struct {
	Path string `json:"path"`
	// Source is what is shown; Path itself when empty.
	Source   string `json:"source,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
}
