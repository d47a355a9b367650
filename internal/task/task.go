// Package task is what a worker is given, what it gives back, and the words in
// which it and the work server speak.
//
// It owns the types that cross the wire between work (the server) and worker,
// as JSON over HTTP. It promises to be small, because the worker carries it
// into other people's images, and to be pure. It runs nothing and keeps nothing.
package task

import "time"

// A Task is one unit of work, whole: everything in it is a value, nothing is
// left to be filled in.
type Task struct {
	// Image is the reference to run, pinned to a digest where one was found.
	Image   string   `json:"image,omitempty"`
	Command []string `json:"command,omitempty"` // in place of the image's entrypoint
	Args    []string `json:"args,omitempty"`    // in place of its command
	Env     []Env    `json:"env,omitempty"`
	WorkDir string   `json:"workdir,omitempty"`
	// Script is written to a file, whose path is appended to the command.
	Script string `json:"script,omitempty"`
	// Inputs are there before the program starts.
	Inputs []Input `json:"inputs,omitempty"`
	// Outputs are collected when it has ended; those of a failed program too,
	// as far as they are there.
	Outputs []Output `json:"outputs,omitempty"`
	// Timeout ends it; 0 for none. Grace is how long it has between SIGTERM and
	// SIGKILL; 30 s when 0.
	Timeout time.Duration `json:"timeout,omitempty"`
	Grace   time.Duration `json:"grace,omitempty"`
	// CPU in thousandths of a processor and Memory in bytes that it wants to
	// itself; 0: does not say.
	CPU    int64 `json:"cpu,omitempty"`
	Memory int64 `json:"memory,omitempty"`
	// User is uid[:gid] in the image's terms; "" for the image's own.
	User string `json:"user,omitempty"`
	// Isolation is "auto" (or empty), "overlay", "readonly", "pod" or "shared".
	Isolation string `json:"isolation,omitempty"`
	// Volumes are folders; those without a Claim are new for each task.
	Volumes []Volume `json:"volumes,omitempty"`
	// LogLimit is how many bytes of output are kept; the server's when 0.
	LogLimit int64 `json:"log_limit,omitempty"`
	// Pod is what else Kubernetes has to know (a PodSpec's fields, merged); a
	// local pool refuses what it cannot honour, by name.
	Pod map[string]any `json:"pod,omitempty"`
	// Daemon: others need the program while it runs. It is ready when Ready says
	// so, or when it has been started, and that is told with [Ask.Serving].
	Daemon bool   `json:"daemon,omitempty"`
	Ready  *Probe `json:"ready,omitempty"`
	// Set: other containers of its pod are part of it.
	Set *Set `json:"set,omitempty"`
	// HTTP, in place of an image: a request that the server makes itself.
	HTTP *HTTP `json:"http,omitempty"`
	// Resource, likewise: a request to a cluster that the worker makes.
	Resource *Resource `json:"resource,omitempty"`
	// PodName: there is [PodName] in it, for who hands it to a pod to fill in.
	PodName bool `json:"pod_name,omitempty"`
}

// Env is a variable of the environment.
type Env struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// An Input is a file or folder at Path. One of Content, Digest and Source says
// what is in it.
type Input struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Mode    uint32 `json:"mode,omitempty"`    // 0644 when 0
	Content []byte `json:"content,omitempty"` // small ones
	// Digest names a blob that the server has; it is a tar to be unpacked at
	// Path when Folder, else the file.
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Folder bool   `json:"folder,omitempty"`
	// Source is where the server fetches it from: http, s3 or git. A worker
	// never sees its credentials; it asks the server for the bytes.
	Source *Source `json:"source,omitempty"`
}

// A Source is an artifact that lives elsewhere.
type Source struct {
	// Kind is raw, http, s3, git, file (URL is a path on the server's machine)
	// or part (URL is the digest of a folder in its store, Key a path in it).
	Kind     string            `json:"kind"`
	URL      string            `json:"url,omitempty"`      // s3: the bucket, or s3://bucket/key
	Revision string            `json:"revision,omitempty"` // git
	Key      string            `json:"key,omitempty"`      // s3, part
	Endpoint string            `json:"endpoint,omitempty"` // s3: https://host[:port]; Amazon's when empty
	Region   string            `json:"region,omitempty"`   // s3: us-east-1 when empty
	Headers  map[string]string `json:"headers,omitempty"`
	Secret   string            `json:"secret,omitempty"` // name of a secret of the server's
	Raw      string            `json:"raw,omitempty"`
	// Archive says what is unpacked: "tar" what is a tar compressed by gzip,
	// "zip" a zip, "auto" both and a tar that is not compressed. What holds one
	// thing only becomes that; all else is taken as it is.
	Archive string `json:"archive,omitempty"`
}

// The kinds of outputs.
const (
	Result    = "result"    // standard output, trimmed of one newline at its end
	Parameter = "parameter" // the text of a file, trimmed likewise
	Artifact  = "artifact"  // a file or folder, stored as a blob
)

// An Output is something that a program leaves.
type Output struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Path string `json:"path,omitempty"`
	// Type is json, lines, text, file or folder; text or file when empty.
	Type     string  `json:"type,omitempty"`
	Default  *string `json:"default,omitempty"` // of a parameter whose file is not there
	Optional bool    `json:"optional,omitempty"`
	// Archive of a folder: tar (default), none, zip.
	Archive string `json:"archive,omitempty"`
	// To is where else the server puts it (http, s3); nil for its own store.
	To *Source `json:"to,omitempty"`
}

// A Volume is a folder of a task.
type Volume struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Claim    string `json:"claim,omitempty"` // of a persistent one, which tasks share
	ReadOnly bool   `json:"read_only,omitempty"`
	// Namespace of the run: those of others with a claim of this name mean
	// another one.
	Namespace string `json:"namespace,omitempty"`
}

// A Probe asks a program whether it is ready: one of Exec, Port with HTTP, and
// Port alone.
type Probe struct {
	Exec []string `json:"exec,omitempty"` // exits with 0; beside the program, in its container
	Port int      `json:"port,omitempty"` // accepts connections
	// HTTP answers with a status from 200 to 399 at this path, "http" or "https".
	HTTP    string            `json:"http,omitempty"`
	Path    string            `json:"path,omitempty"`
	Host    string            `json:"host,omitempty"` // the program's own address when empty
	Headers map[string]string `json:"headers,omitempty"`
	// Delay is before the first time, Period between two (1 s when 0), Timeout for
	// one (1 s when 0), and Times how often in a row it has to go well (1 when 0).
	Delay   time.Duration `json:"delay,omitempty"`
	Period  time.Duration `json:"period,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	Times   int           `json:"times,omitempty"`
}

// A Set is several containers that are one task. Each runs its program when
// those that it needs have ended well; the task has when all have.
type Set struct {
	Name    string   `json:"name"` // of the task's own
	Needs   []string `json:"needs,omitempty"`
	Members []Member `json:"members,omitempty"` // the others
	// Retries is how often a program that failed is run again, after Delay.
	Retries int           `json:"retries,omitempty"`
	Delay   time.Duration `json:"delay,omitempty"`
}

// A Member is a container of a Set.
type Member struct {
	Name  string   `json:"name"`
	Needs []string `json:"needs,omitempty"`
}

// HTTP is a request in place of a program.
type HTTP struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	// Success is an expression of the front end over the answer; evaluated by the server.
	Success string `json:"success,omitempty"`
}

// A Phase is how a task ended.
type Phase string

// The phases of an ended task.
const (
	Succeeded Phase = "succeeded"
	Failed    Phase = "failed" // the program says so: it may be retried, at the user's expense
	Errored   Phase = "error"  // the program was not started or could not be watched to its end
	Canceled  Phase = "canceled"
)

// A Ref names one attempt at a task. Task is unique within its run.
type Ref struct {
	Run     string `json:"run"`
	Task    string `json:"task"`
	Attempt int    `json:"attempt"`
	// Token is what makes the holder the holder; a server that does not know
	// it any more refuses whatever comes with it.
	Token string `json:"token"`
}

// A Lease is a task that its holder may run until it expires.
type Lease struct {
	Ref
	// Body is the index of the task's body in the Grant: tasks of one fan-out
	// share most of it. Own replaces fields of it where it is set.
	Body int  `json:"body"`
	Own  *Own `json:"own,omitempty"`
	// Key is CAIRN_IDEMPOTENCY_KEY: the same for all attempts.
	Key string `json:"key"`
}

// Own is what differs between tasks that share a body; nil fields do not.
type Own struct {
	Command []string `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
	Env     []Env    `json:"env,omitempty"` // appended
	Script  *string  `json:"script,omitempty"`
	Inputs  []Input  `json:"inputs,omitempty"` // appended
}

// An Outcome is how an attempt ended.
type Outcome struct {
	Ref
	Phase Phase `json:"phase"`
	// Exit is the program's exit code, 128+n for signal n; -1 when there was none.
	Exit int `json:"exit"`
	// Message says what happened, for people: "killed: out of memory".
	Message string `json:"message,omitempty"`
	// Outputs by name: a parameter or result is Text; an artifact is a blob.
	Outputs map[string]Produced `json:"outputs,omitempty"`
	Started time.Time           `json:"started,omitzero"`
	Ended   time.Time           `json:"ended,omitzero"`
	// Infrastructure: the worker and not the program is at fault (eviction,
	// image that cannot be pulled); spends the crash budget, not the retries.
	Infrastructure bool `json:"infrastructure,omitempty"`
	// Isolation that the task got.
	Isolation string `json:"isolation,omitempty"`
	// Truncated is how many bytes of output were not kept.
	Truncated int64 `json:"truncated,omitempty"`
}

// Produced is one output as it was found.
type Produced struct {
	Text   *string `json:"text,omitempty"`
	Digest string  `json:"digest,omitempty"`
	Size   int64   `json:"size,omitempty"`
	Folder bool    `json:"folder,omitempty"`
}
