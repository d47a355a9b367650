// Package wire is what a keeper and whoever started it say to each other: one
// JSON value a line, on the keeper's standard input and output. It owns the
// shapes and nothing else; what they cause is the keeper's.
package wire

// Slot says which of the places for clusters on this computer was free. Its
// number makes the names and addresses of the cluster its own.
type Slot struct {
	Slot   int    `json:"slot"`
	Folder string `json:"folder"` // empty; removed at the end
}

// Plan is what to run.
type Plan struct {
	Bridge   string    `json:"bridge"`  // name of the bridge between this computer and the machines
	Address  string    `json:"address"` // of this computer on the bridge, with the length of the prefix
	Cgroup   string    `json:"cgroup"`  // removed at the end, with all below it, from each hierarchy
	Machines []Machine `json:"machines"`
}

// Machine is one set of namespaces.
type Machine struct {
	Hostname  string     `json:"hostname"`
	Address   string     `json:"address"`   // on the bridge, with the length of the prefix
	Gateway   string     `json:"gateway"`   // this computer, as the machine sees it
	Pods      string     `json:"pods"`      // network of its pods, routed to it by everybody
	Aliases   []string   `json:"aliases"`   // further addresses of its own, with prefixes
	Cgroup    string     `json:"cgroup"`    // made in each hierarchy; none when empty
	Binds     []Bind     `json:"binds"`     // folders put over others
	Files     []File     `json:"files"`     // files put over others
	Processes []*Process `json:"processes"` // started in this order, each when its Wait is over
}

// Bind puts the folder From in the place of To.
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// File puts a file with this content in the place of Path, for the processes
// of the machine alone. A missing path is left alone.
type File struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

// Process is a program that runs until it is told to end.
type Process struct {
	Name string   `json:"name"`
	Path string   `json:"path"`
	Args []string `json:"args"` // without the name
	Env  []string `json:"env"`
	Log  string   `json:"log"`  // file for its output
	Wait string   `json:"wait"` // https address that must answer 200 first, or path of a socket that must accept
}

// Command is an order to a machine.
type Command struct {
	ID      int    `json:"id"`
	Machine int    `json:"machine"`
	Do      string `json:"do"`      // "start", "signal"
	Process string `json:"process"` // by name
	Signal  int    `json:"signal"`
}

// Event says what happened.
type Event struct {
	Machine int    `json:"machine"`
	PID     int    `json:"pid,omitempty"`    // of the machine's first process, as this computer counts
	Exited  string `json:"exited,omitempty"` // process that ended
	Status  string `json:"status,omitempty"` // and how
	ID      int    `json:"id,omitempty"`     // answer to a command
	Error   string `json:"error,omitempty"`  // of the command, or of the machine when there is no ID
}
