package isolate

// A Root describes a fresh root: what is mounted where, in this order. It is
// made by [Survey.Root], or from an image's layers, and carried out by a
// process in namespaces of its own.
type Root struct {
	// At is an empty folder, on which the root is put together.
	At string `json:"at"`
	// Layers are the overlays; the first is the root itself.
	Layers []Layer `json:"layers"`
	// Binds are files and folders that are shared with the container.
	Binds []Bind `json:"binds,omitempty"`

	// Again: when a task has left it, what it did not touch is the next one's.
	// Its layers lie beside At, and what replaces them will.
	Again bool `json:"again,omitempty"`

	// Image: the layers are those of an image, and nothing of what we are in is
	// to be seen. What images do not bring (/dev, /proc, /tmp) is made, what is
	// the machine's own in /proc and /sys is hidden or cannot be written, and
	// programs get no more power than containers commonly have.
	Image bool `json:"image,omitempty"`
	// Bare: only the layers, for a process that changes them.
	Bare bool `json:"bare,omitempty"`
	// Host is the name that an image's programs see; none when empty.
	Host string `json:"host,omitempty"`
}

// A Layer is a folder seen through an overlay.
type Layer struct {
	Path  string   `json:"path"`  // in the new root
	Lower []string `json:"lower"` // folders, the topmost first
	// Upper is where its changes go; Work is what the kernel wants beside it.
	Upper string `json:"upper"`
	Work  string `json:"work"`
	// Room: the folders below are empty, but for what is bound into them.
	Room bool `json:"room,omitempty"`
}

// A Bind shows something of the container in the new root.
type Bind struct {
	Path string `json:"path"`
	// Source is what is shown; Path itself when empty.
	Source   string `json:"source,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
}
