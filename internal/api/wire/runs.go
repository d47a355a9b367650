package wire

import "time"

// A Document is a file of documents, YAML or JSON, as somebody wrote it.
type Document struct {
	Name string `json:"name,omitempty" doc:"what problems in it are told by" maxLength:"1000"`
	Text string `json:"text" doc:"one or more documents of a workflow; templates that it refers to may be among them"`
}

// A Submission starts a run.
type Submission struct {
	Document
	// Args are values of parameters, as texts; the type of the parameter says
	// how each is read.
	Args map[string]string `json:"args,omitempty" doc:"values of parameters, read as their types say"`
	// Files are values of parameters that are files, as they were uploaded.
	Files map[string]Upload `json:"files,omitempty" doc:"values of parameters that are files"`
	// FileLists are values of parameters that are lists of files.
	FileLists map[string][]Upload `json:"file_lists,omitempty" doc:"values of parameters that are lists of files"`
	Run       SubmitOptions       `json:"run,omitzero"`
}

// SubmitOptions are what a submission may say in place of its document.
type SubmitOptions struct {
	Name      string `json:"name,omitempty" maxLength:"245" doc:"in place of the document's; with a '-' at its end a name is made from it"`
	Namespace string `json:"namespace,omitempty" maxLength:"253" doc:"in place of the document's"`
	Key       string `json:"key,omitempty" maxLength:"200" doc:"who submits with the same key again gets the run that is there"`
	Pool      string `json:"pool,omitempty" maxLength:"253" doc:"the workers that run its tasks"`
}

// Submitted is the run that was started, or that was there already.
type Submitted struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	// Warnings say what of the documents was not made use of.
	Warnings []string `json:"warnings,omitempty"`
}

// Checked is what is wrong with documents, and what they make when nothing is.
type Checked struct {
	Problems []DocumentProblem `json:"problems"`
	Kind     string            `json:"kind,omitempty"`  // Workflow or CronWorkflow
	Graph    string            `json:"graph,omitempty"` // for people
}

// A DocumentProblem is something wrong in a document, with its place and the cure.
type DocumentProblem struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Path   string `json:"path,omitempty"` // spec.tasks[2].when
	Text   string `json:"text"`
}

// Run is one execution of a workflow.
type Run struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Namespace string         `json:"namespace"`
	Pool      string         `json:"pool"` // whose workers run its tasks
	By        string         `json:"by"`
	Schedule  string         `json:"schedule,omitempty"` // that began it
	Phase     string         `json:"phase" enum:"waiting,running,succeeded,failed,error,canceled"`
	Message   string         `json:"message,omitempty"`
	Suspended bool           `json:"suspended,omitempty"` // nothing new is begun
	Created   time.Time      `json:"created"`
	Ended     time.Time      `json:"ended,omitzero"`
	Tasks     TaskCounts     `json:"tasks"`
	Isolation map[string]int `json:"isolation,omitempty"` // how many tasks got which; of one run only
	Outputs   map[string]any `json:"outputs,omitempty"`   // of one run only
	// LogsKept is how long its logs were there that are gone; of one run only.
	LogsKept Duration `json:"logs_kept,omitzero"`
}

// Done reports whether the run has ended.
func (r *Run) Done() bool { return !r.Ended.IsZero() }

// TaskCounts are the tasks of a run. Those that are not known yet are not
// counted.
type TaskCounts struct {
	Total     int `json:"total"`
	Active    int `json:"active"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Skipped   int `json:"skipped"`
	Canceled  int `json:"canceled"` // ended before their time, or never begun because of that
	Retries   int `json:"retries"`
	Crashes   int `json:"crashes"` // workers that were lost with a task
}

// Done is how many have ended.
func (c TaskCounts) Done() int { return c.Succeeded + c.Failed + c.Skipped + c.Canceled }

// RunList is a page of runs, newest first.
type RunList struct {
	Runs []Run  `json:"runs"`
	Next string `json:"next,omitempty"` // after= of the next page
}

// A RunNode is a box of a run's graph, or an item of a fan-out.
type RunNode struct {
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	Template string         `json:"template,omitempty"`
	Kind     string         `json:"kind" doc:"task, tasks, dag, items, suspend or call (which has not begun)"`
	Phase    string         `json:"phase"`
	Message  string         `json:"message,omitempty"`
	Exit     int            `json:"exit,omitempty"` // the program's exit code
	Attempt  int            `json:"attempt,omitempty"`
	Worker   string         `json:"worker,omitempty"`
	Started  time.Time      `json:"started,omitzero"`
	Ended    time.Time      `json:"ended,omitzero"`
	Items    *ItemCounts    `json:"items,omitempty"` // of a fan-out
	Children bool           `json:"children,omitempty"`
	Waits    string         `json:"waits,omitempty"`   // what for
	Address  string         `json:"address,omitempty"` // of a daemon that serves
	Outputs  map[string]any `json:"outputs,omitempty"` // of one node only
}

// ItemCounts are the items of a fan-out.
type ItemCounts struct {
	Total     int `json:"total"`
	Active    int `json:"active"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Skipped   int `json:"skipped"`
	Canceled  int `json:"canceled"`
}

// Done is how many have ended.
func (c ItemCounts) Done() int { return c.Succeeded + c.Failed + c.Skipped + c.Canceled }

// NodeList is a page of nodes.
type NodeList struct {
	Nodes []RunNode `json:"nodes"`
	Next  string    `json:"next,omitempty"` // after= of the next page
}

// CancelRequest ends a run.
type CancelRequest struct {
	Now bool `json:"now,omitempty" doc:"exit handlers do not run either"`
}

// ResumeRequest ends a suspension.
type ResumeRequest struct {
	Node    string            `json:"node,omitempty" doc:"the node that waits; the whole run when left out"`
	Outputs map[string]string `json:"outputs,omitempty" doc:"what the node asks for"`
	Fail    bool              `json:"fail,omitempty" doc:"the node fails in place of succeeding"`
	Message string            `json:"message,omitempty" maxLength:"4096"`
}

// A LogLine is a line that a task printed. Text is without its line feed;
// Bytes is in its place where the line is no UTF-8.
type LogLine struct {
	Task    string    `json:"task"`
	Name    string    `json:"name,omitempty"` // what people call the task: count(7)
	Attempt int       `json:"attempt"`
	Stream  string    `json:"stream" enum:"stdout,stderr"`
	At      time.Time `json:"at"`
	Text    string    `json:"text,omitempty"`
	Bytes   []byte    `json:"bytes,omitempty"`
	// Part: there is no line feed; more of the line follows, if anything.
	Part bool `json:"part,omitempty"`
	// Cut: so many bytes at this place were not kept, and there is no text.
	Cut int64 `json:"cut,omitempty"`
}

// An Upload is a file that was handed in, for runs that are submitted with it
// within the hour. Who knows its id may do that.
type Upload struct {
	ID     string `json:"id" maxLength:"100"`
	Digest string `json:"digest" maxLength:"200"`
	Size   int64  `json:"size" minimum:"0"`
	Name   string `json:"name,omitempty" maxLength:"1000" doc:"of the file, as its task is to see it; chosen by who submits"`
}

// A Schedule starts runs by the clock.
type Schedule struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	By        string    `json:"by"`
	Pool      string    `json:"pool"` // whose workers run the tasks of its runs
	Crons     []string  `json:"crons"`
	Timezone  string    `json:"timezone,omitempty"`
	Suspended bool      `json:"suspended,omitempty"`
	Created   time.Time `json:"created"`
	Last      time.Time `json:"last,omitzero"` // the newest time that was dealt with
	Next      time.Time `json:"next,omitzero"`
	Trouble   string    `json:"trouble,omitempty"` // why it started nothing the last time
}

// ScheduleList is all of them.
type ScheduleList struct {
	Schedules []Schedule `json:"schedules"`
}

// A Template is a document that workflows refer to by its name.
type Template struct {
	Kind      string    `json:"kind" enum:"WorkflowTemplate,ClusterWorkflowTemplate"`
	Namespace string    `json:"namespace,omitempty"` // none of a ClusterWorkflowTemplate
	Name      string    `json:"name"`
	By        string    `json:"by"`
	Changed   time.Time `json:"changed"`
	Text      string    `json:"text,omitempty"` // of one only
}

// TemplateList is all of them.
type TemplateList struct {
	Templates []Template `json:"templates"`
}
