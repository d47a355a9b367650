package task

import "time"

// The paths of the work server. All are POST with JSON but those of bytes.
const (
	PathWork     = "/api/v1/work/ask"       // Ask -> Grant: results in, leases out
	PathBeat     = "/api/v1/work/beat"      // Beat -> Beaten
	PathLogs     = "/api/v1/work/logs"      // a stream of Frames -> Logged
	PathBlob     = "/api/v1/work/blobs/"    // GET DIGEST -> bytes; POST bytes -> Produced. With HeaderLease
	PathArtifact = "/api/v1/work/artifacts" // Input -> bytes of its Source. With HeaderLease
	PathRequest  = "/api/v1/work/request"   // Ref -> Outcome of the request that its task is
)

// HeaderFolder says in an answer to [PathArtifact] that the bytes are a tar of a
// folder ("true") or a file ("false"), whatever the input said.
const HeaderFolder = "Cairn-Folder"

// HeaderOutput says in a request to [PathBlob] which output the bytes are of: the
// Output as JSON, in base64 without padding. The server puts them where it says
// as well, before it answers.
const HeaderOutput = "Cairn-Output"

// Ask brings results and asks for work, in one call, so that a worker under
// load needs one call a batch.
type Ask struct {
	Worker string `json:"worker"`
	Pool   string `json:"pool"` // what the worker is able to run; see Pool
	// Outcomes of leases it held.
	Outcomes []Outcome `json:"outcomes,omitempty"`
	// Serving are daemons that are ready. It may be said again.
	Serving []Serving `json:"serving,omitempty"`
	// Back are leases of tasks it has not started and will not.
	Back []Ref `json:"back,omitempty"`
	// Want is how many leases it takes; 0 only reports. Wait is how long the
	// server may hold the call when there is no work.
	Want int           `json:"want"`
	Wait time.Duration `json:"wait,omitempty"`
}

// Serving says that a daemon is ready, and where others find it: an IP address.
type Serving struct {
	Ref
	Address string `json:"address"`
}

// Grant answers an Ask.
type Grant struct {
	Leases []Lease `json:"leases,omitempty"`
	Bodies []Task  `json:"bodies,omitempty"`
	// Term is how long leases hold without a Beat.
	Term time.Duration `json:"term"`
	// Refused are outcomes that were not taken because their lease is not held
	// any more. An outcome that is not here is durable.
	Refused []Ref `json:"refused,omitempty"`
	// Drain: finish what you have and leave.
	Drain bool `json:"drain,omitempty"`
}

// Beat says that a worker lives and what it holds.
type Beat struct {
	Worker string `json:"worker"`
	Held   []Ref  `json:"held"`
	// Wait is how long the server may hold the call when it has nothing to say, so
	// that a worker hears at once what it is to end.
	Wait time.Duration `json:"wait,omitempty"`
}

// Beaten answers a Beat.
type Beaten struct {
	Term time.Duration `json:"term"`
	// Cancel are tasks to be ended, with their outcome Canceled.
	Cancel []Ref `json:"cancel,omitempty"`
	// Again: something was canceled that may have been taken since the call. Beat
	// again soon.
	Again bool `json:"again,omitempty"`
	// Lost are leases that are not held any more: end the task, say nothing.
	Lost []Ref `json:"lost,omitempty"`
	// Return asks for so many leases of tasks that were not started, because
	// others idle.
	Return int  `json:"return,omitempty"`
	Drain  bool `json:"drain,omitempty"`
}
