package controller

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// brief is a status in few words: its phase, and its conditions.
func brief(status map[string]any) string {
	out := []string{fmt.Sprint(status["phase"])}
	list, _ := status["conditions"].([]any)
	for _, e := range list {
		c, _ := e.(map[string]any)
		since, _ := c["lastTransitionTime"].(string)
		out = append(out, fmt.Sprintf("%v=%v/%v@%s", c["type"], c["status"], c["reason"], strings.TrimSuffix(strings.TrimPrefix(since, "2026-11-23T"), "Z")))
	}
	return strings.Join(out, " ")
}

func TestRunStatus(t *testing.T) {
	info := func(p machine.Phase) work.Info {
		return work.Info{ID: "r1", Phase: p, Created: noon, Counts: machine.Counts{Total: 3, Succeeded: 1, Failed: 1, Active: 1}}
	}
	var status map[string]any
	for i, tt := range []struct {
		p    picture
		want string
	}{ // one after the other, of one object, a minute apart
		{picture{refused: "no"}, "Refused Accepted=False/Refused@12:00:00"},
		{picture{run: info(machine.Running)}, "Running Accepted=True/Accepted@12:01:00 Running=True/Running@12:01:00"},
		{picture{run: info(machine.Running), changed: true}, "Running Accepted=True/Accepted@12:01:00 Running=True/Running@12:01:00 Changed=True/SpecChanged@12:02:00"},
		{picture{run: work.Info{ID: "r1", Phase: machine.Running, Suspended: true}}, "Suspended Accepted=True/Accepted@12:01:00 Running=True/Suspended@12:01:00"},
		{picture{run: info(machine.Failed)}, "Failed Accepted=True/Accepted@12:01:00 Running=False/Failed@12:04:00 Succeeded=False/Failed@12:04:00 Failed=True/Failed@12:04:00"},
		{picture{run: info(machine.Running)}, "Running Accepted=True/Accepted@12:01:00 Running=True/Running@12:05:00"}, // retried
		{picture{run: info(machine.Succeeded)}, "Succeeded Accepted=True/Accepted@12:01:00 Running=False/Succeeded@12:06:00 Succeeded=True/Succeeded@12:06:00 Failed=False/Succeeded@12:06:00"},
		{picture{run: info(machine.Canceled)}, "Canceled Accepted=True/Accepted@12:01:00 Running=False/Canceled@12:06:00 Succeeded=False/Canceled@12:07:00 Failed=True/Canceled@12:07:00"},
		{picture{run: info(machine.Errored)}, "Error Accepted=True/Accepted@12:01:00 Running=False/Error@12:06:00 Succeeded=False/Error@12:07:00 Failed=True/Error@12:07:00"},
		{picture{run: work.Info{ID: "r1"}, lost: true}, "Error Accepted=True/Accepted@12:01:00 Running=False/Lost@12:06:00 Succeeded=False/Lost@12:07:00 Failed=True/Lost@12:07:00"},
	} {
		tt.p.now = noon.Add(time.Duration(i) * time.Minute)
		status = runStatus(tt.p, status)
		if got := brief(status); got != tt.want {
			t.Errorf("step %d:\ngot  %s\nwant %s", i, got, tt.want)
		}
	}
	if s := runStatus(picture{run: info(machine.Running), waits: "no quota", now: noon}, nil); s["message"] != "no quota" {
		t.Errorf("what a run waits for is not told: %v", s)
	}
	p := picture{run: info(machine.Running), now: noon, generation: 3, spec: "abc", link: "https://x", samples: []sample{{"2.7", "a(7)", "it broke", 3}}}
	got, err := json.Marshal(runStatus(p, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"conditions":[{"lastTransitionTime":"2026-11-23T12:00:00Z","message":"the run was taken","observedGeneration":3,"reason":"Accepted","status":"True","type":"Accepted"},` +
		`{"lastTransitionTime":"2026-11-23T12:00:00Z","message":"","observedGeneration":3,"reason":"Running","status":"True","type":"Running"}],` +
		`"counts":{"active":1,"canceled":0,"failed":1,"retries":0,"skipped":0,"succeeded":1,"total":3},"failed":[{"exitCode":3,"message":"it broke","name":"a(7)","task":"2.7"}],` +
		`"link":"https://x","observedGeneration":3,"observedSpec":"abc","phase":"Running","progress":"2/3","run":"r1","startedAt":"2026-11-23T12:00:00Z"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// However long texts are and however many nodes there are, a status fits.
func TestStatusIsSmall(t *testing.T) {
	long := strings.Repeat("ü\"<\x01", 50_000)
	p := picture{now: noon, generation: 1 << 60, spec: strings.Repeat("a", 16), link: "https://" + strings.Repeat("x", 200), changed: true,
		run: work.Info{ID: strings.Repeat("r", 24), Phase: machine.Failed, Message: long, Created: noon, Ended: noon,
			Counts:  machine.Counts{Total: 1 << 40, Failed: 1 << 40, Succeeded: 1 << 40, Retries: 1 << 40},
			Outputs: map[string]any{"a": long, "f": &workflow.File{Digest: "sha256:x"}}}}
	for range 50 {
		p.samples = append(p.samples, sample{"12345.1234567", long, long, 137})
	}
	var nodes []argoNode
	for i := range 200 {
		nodes = append(nodes, nodeOf("w", "w", "w."+fmt.Sprint(i), machine.View{ID: fmt.Sprint(i), Name: fmt.Sprint(i), Kind: "task", Phase: machine.Failed, Message: long, Started: noon, Ended: noon, Outputs: map[string]workflow.Value{"result": long}}))
	}
	for _, n := range nodes { // all are below the first
		nodes[0].children = append(nodes[0].children, n.id)
	}
	refused := p
	refused.refused = long
	argo, _ := argoStatus(p, nodes, nil)
	argoRefused, _ := argoStatus(refused, nil, nil)
	for name, s := range map[string]map[string]any{"ours": runStatus(p, nil), "refused": runStatus(refused, nil), "argo": argo, "argo, refused": argoRefused} {
		if n := size(s); n > MaxStatus {
			t.Errorf("%s: %d bytes, at most %d", name, n, MaxStatus)
		}
	}
	kept, _ := argo["nodes"].(map[string]any)
	if len(kept) < 10 || len(kept) == 200 {
		t.Errorf("%d nodes of 200 were kept", len(kept))
	}
	if first, _ := kept["w-0"].(map[string]any); len(first["children"].([]any)) != len(kept) {
		t.Errorf("of %d nodes that were kept %v are children of the first", len(kept), first["children"])
	}
	for _, k := range []string{"w-0", "w-1"} { // the first, whatever the order of a map
		if kept[k] == nil {
			t.Errorf("node %s was not kept", k)
		}
	}
	if n := len(runStatus(p, nil)["failed"].([]any)); n != maxSamples {
		t.Errorf("%d samples, want %d", n, maxSamples)
	}
}

func TestArgoStatus(t *testing.T) {
	for _, tt := range []struct {
		p                 picture
		phase, completed  string
		done, active      string
		progress, message any
	}{
		{picture{run: work.Info{Phase: machine.Running, Counts: machine.Counts{Total: 2, Active: 1}}}, "Running", "false", "False", "True", "0/2", nil},
		{picture{run: work.Info{Phase: machine.Succeeded, Counts: machine.Counts{Total: 2, Succeeded: 1, Skipped: 1}}}, "Succeeded", "true", "True", "", "2/2", nil},
		{picture{run: work.Info{Phase: machine.Canceled, Message: "stopped by ann"}}, "Failed", "true", "True", "", "0/0", "stopped by ann"},
		{picture{run: work.Info{Phase: machine.Errored}}, "Error", "true", "True", "", "0/0", nil},
		{picture{refused: "spec: no"}, "Error", "true", "True", "", nil, "spec: no"},
		{picture{lost: true}, "Error", "true", "True", "", nil, lostMessage},
	} {
		s, labels := argoStatus(tt.p, nil, nil)
		cs := map[any]any{}
		for _, e := range s["conditions"].([]any) {
			cs[e.(map[string]any)["type"]] = e.(map[string]any)["status"]
		}
		active, _ := cs["PodRunning"].(string)
		if s["phase"] != tt.phase || labels[labelCompleted] != tt.completed || labels[labelPhase] != tt.phase || cs["Completed"] != tt.done || active != tt.active || s["progress"] != tt.progress || s["message"] != tt.message {
			t.Errorf("%+v: %v, labels %v", tt.p, s, labels)
		}
	}
}

func TestNodeOf(t *testing.T) {
	for _, tt := range []struct {
		above string
		v     machine.View
		want  string
	}{
		{"", machine.View{ID: "1", Name: "x", Kind: "dag", Phase: machine.Running, Template: "main"}, `{"displayName":"w","id":"w","name":"w.x","phase":"Running","templateName":"main","type":"DAG"}`},
		{"w", machine.View{ID: "2", Name: "a", Kind: "task", Phase: machine.Succeeded, Outputs: map[string]workflow.Value{"result": "7", "parameters": map[string]any{"p": 1.5}}},
			`{"boundaryID":"w","displayName":"a","id":"w-2","name":"w.x","outputs":{"exitCode":"0","parameters":[{"name":"p","value":"1.5"}],"result":"7"},"phase":"Succeeded","type":"Pod"}`},
		{"w", machine.View{ID: "3", Name: "a", Kind: "tasks", Phase: machine.Running, Items: 9, Succeeded: 4}, `{"boundaryID":"w","displayName":"a","id":"w-3","name":"w.x","phase":"Running","progress":"4/9","type":"TaskGroup"}`},
		{"w", machine.View{Name: "b", Kind: "call", Phase: machine.Omitted}, `{"boundaryID":"w","displayName":"b","id":"w-b","name":"w.x","phase":"Omitted","type":"Skipped"}`},
		{"w", machine.View{ID: "4", Name: "s", Kind: "suspend", Phase: machine.Running}, `{"boundaryID":"w","displayName":"s","id":"w-4","name":"w.x","phase":"Running","type":"Suspend"}`},
	} {
		b, err := json.Marshal(nodeOf("w", tt.above, "w.x", tt.v).value)
		if err != nil || string(b) != tt.want {
			t.Errorf("got  %s (%v)\nwant %s", b, err, tt.want)
		}
	}
}

func TestCronStatus(t *testing.T) {
	x := work.ScheduleInfo{Name: "n", Crons: []string{"0 3 * * *", "@daily"}, Created: noon, Next: noon.Add(time.Hour), Trouble: "run a has not ended"}
	s := cronStatus(x, work.Info{}, "", 2, noon, nil)
	if s["schedule"] != "0 3 * * *, @daily" || s["lastScheduleTime"] != nil || s["nextScheduleTime"] != "2026-11-23T13:00:00Z" || s["message"] != "run a has not ended" || s["suspended"] != false {
		t.Errorf("before its first time: %v", s)
	}
	x.Last = noon.Add(time.Minute)
	if s = cronStatus(x, work.Info{ID: "r", Phase: machine.Failed}, "spec.schedules: no", 2, noon, s); s["lastRun"] != "r" || s["lastPhase"] != "Failed" || s["lastScheduleTime"] != "2026-11-23T12:01:00Z" || s["message"] != "spec.schedules: no" || !strings.Contains(brief(s), "Accepted=False/Refused") {
		t.Errorf("after it, and refused: %v", s)
	}
	a := argoCronStatus(x, work.Info{ID: "r", Name: "n-1", Phase: machine.Running}, "", 2, noon, nil)
	if l := a["active"].([]any); len(l) != 1 || l[0].(map[string]any)["name"] != "n-1" {
		t.Errorf("active: %v", l)
	}
	if cs := a["conditions"].([]any); len(cs) != 1 || cs[0].(map[string]any)["type"] != "SubmissionError" || a["lastScheduledTime"] != "2026-11-23T12:01:00Z" {
		t.Errorf("argo: %v", a)
	}
}

// A patch says what is new and what is gone, and nothing else.
func TestDifference(t *testing.T) {
	for _, tt := range []struct{ old, new, want string }{
		{`{}`, `{}`, `{}`},
		{`{"a":1}`, `{"a":1}`, `{}`},
		{`{"a":1,"b":{"c":1,"d":2}}`, `{"b":{"c":3}}`, `{"a":null,"b":{"c":3,"d":null}}`},
		{`{"a":[1,2]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"a":"x"}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{`{"a":{"b":1}}`, `{"a":"x"}`, `{"a":"x"}`},
		{`null`, `{"a":{"b":[]}}`, `{"a":{"b":[]}}`},
	} {
		var old, new, want map[string]any
		for _, x := range []struct {
			text string
			to   *map[string]any
		}{{tt.old, &old}, {tt.new, &new}, {tt.want, &want}} {
			if err := json.Unmarshal([]byte(x.text), x.to); err != nil {
				t.Fatal(err)
			}
		}
		if got := difference(old, new); !reflect.DeepEqual(got, want) {
			t.Errorf("%s to %s: %v, want %s", tt.old, tt.new, got, tt.want)
		}
	}
	// What an API server sends back is of other types.
	if d := difference(map[string]any{"n": float64(3)}, map[string]any{"n": int64(3)}); len(d) != 0 {
		t.Errorf("3 is not 3: %v", d)
	}
}

func TestDocument(t *testing.T) {
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cairn.dev/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "a", "namespace": "n", "uid": "u", "generation": int64(2), "labels": map[string]any{"l": "v"}, "annotations": map[string]any{"x": "y"}},
		"spec":     map[string]any{"suspended": true, "shutdown": "Stop", "tasks": []any{}},
		"status":   map[string]any{"phase": "Running"},
	}}
	got, err := document(u, "shutdown")
	want := `{"apiVersion":"cairn.dev/v1alpha1","kind":"Workflow","metadata":{"labels":{"l":"v"},"name":"a","namespace":"n"},"spec":{"suspended":true,"tasks":[]}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s (%v)", got, err)
	}
	// What steers a run does not make it another.
	before, err := fingerprint(u)
	if err != nil {
		t.Fatal(err)
	}
	unstructured.RemoveNestedField(u.Object, "spec", "suspended")
	unstructured.RemoveNestedField(u.Object, "spec", "shutdown")
	if after, _ := fingerprint(u); after != before {
		t.Error("resumed, it is another workflow")
	}
	if err := unstructured.SetNestedField(u.Object, int64(3), "spec", "parallelism"); err != nil {
		t.Fatal(err)
	}
	if after, _ := fingerprint(u); after == before {
		t.Error("with another spec it is the same workflow")
	}
}

func TestRefusal(t *testing.T) {
	var ps []workflow.Problem
	for i := range 8 {
		ps = append(ps, workflow.Problem{File: "f", Line: i, Path: fmt.Sprintf("spec.tasks[%d]", i), Text: "is wrong"})
	}
	if got := refusal(ps); got != "spec.tasks[0]: is wrong; spec.tasks[1]: is wrong; spec.tasks[2]: is wrong; spec.tasks[3]: is wrong; spec.tasks[4]: is wrong; and 3 more" {
		t.Error(got)
	}
	for _, tt := range []struct {
		text string
		most int
		want string
	}{{"aüü", 5, "aüü"}, {"aüü", 4, "a…"}, {"aüüü", 6, "aü…"}, {"\x01\x01", 11, "\x01…"}, {"<>", 12, "<>"}, {`""""`, 7, `""…`}, {"", 3, ""}} {
		if got := cut(tt.text, tt.most); got != tt.want {
			t.Errorf("%q in %d bytes: %q, want %q", tt.text, tt.most, got, tt.want)
		}
	}
}
