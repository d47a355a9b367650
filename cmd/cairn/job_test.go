package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
	"cairn.dev/cairn/internal/workflow/workflowtest"
)

// Whatever is written on the command line reaches the program as it is.
func TestJobDocument(t *testing.T) {
	awkward := []string{"", " ", "a b", "${{ run.name }}", "x${{", "}}", "{{inputs.parameters.x}}", `"'\`, "line\nline\r\n", "\t\x01\x7f\u0085\ufeff\uffff", "👩‍🚀", "{", "}", "- a: b # c", "&amp;<>", "null", "1e3", "$(HOME) $HOME"}
	for _, tc := range []struct {
		name string
		job  job
		item any
		want []string // arguments
		key  string
	}{
		{"one", job{image: "busybox", words: awkward}, nil, awkward, "args"},
		{"the image's own command", job{image: "busybox"}, nil, nil, "args"},
		{"in place of the entrypoint", job{image: "busybox", words: []string{"true"}, command: true}, nil, []string{"true"}, "command"},
		{"appended", job{image: "busybox", words: []string{"echo"}, each: true}, "a b", []string{"echo", "a b"}, "args"},
		{"alone", job{image: "busybox", each: true}, "a", []string{"a"}, "args"},
		{"put in", job{image: "busybox", words: []string{"cp", "{}", "/out/{}.bak", "{}{}"}, each: true}, "x", []string{"cp", "x", "/out/x.bak", "xx"}, "args"},
		{"an item that looks like ours", job{image: "busybox", words: []string{"{}", "${{}", "${{ x }}"}, each: true}, "${{ item }} {}", []string{"${{ item }} {}", "${${{ item }} {}", "${{ x }}"}, "args"},
		{"an object", job{image: "busybox", words: []string{"{}"}, each: true}, map[string]any{"a": []any{1.0, "<"}}, []string{`{"a":[1,"<"]}`}, "args"},
		{"a number", job{image: "busybox", words: []string{"n={}"}, each: true}, 3.0, []string{"n=3"}, "args"},
		{"nothing without each", job{image: "busybox", words: []string{"{}"}}, nil, []string{"{}"}, "args"},
		{"in a file", job{image: "busybox", words: []string{"wc"}, each: true, itemFile: "/item"}, "a\x00b", []string{"wc"}, "args"},
		{"a file", job{image: "busybox", words: []string{"wc", "--of={}"}, each: true, files: true}, &workflow.File{Name: "a/b.txt", Digest: "d"}, []string{"wc", "--of=/cairn/in/0/b.txt"}, "args"},
	} {
		doc, err := tc.job.document(func(string) string { return "" })
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		g, problems := front.Compile("f", doc, front.Options{})
		if g == nil {
			t.Errorf("%s: %v in\n%s", tc.name, problems, doc)
			continue
		}
		task, err := g.Templates["main/run"].Leaf.Render(workflowtest.Inputs(map[string]any{"item": tc.item}))
		if err != nil {
			t.Errorf("%s: %v in\n%s", tc.name, err, doc)
			continue
		}
		got, other := task.Args, task.Command
		if tc.key == "command" {
			got, other = other, got
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tc.want) || len(other) > 0 {
			t.Errorf("%s: %s is\n%q, want\n%q; the other is %q", tc.name, tc.key, got, tc.want, other)
		}
		if tc.job.itemFile != "" && (len(task.Inputs) != 1 || string(task.Inputs[0].Content) != tc.item || task.Inputs[0].Path != tc.job.itemFile) {
			t.Errorf("%s: the file is %+v", tc.name, task.Inputs)
		}
	}
}

// Whatever the words and the item hold, the program gets them.
func FuzzJob(f *testing.F) {
	for _, w := range []string{"a{}b", "${{ item }}", "${{{}}}", "\u0085{", "\"}}{}"} {
		f.Add(w, w)
	}
	f.Fuzz(func(t *testing.T, word, item string) {
		if !utf8.ValidString(word) || !utf8.ValidString(item) || strings.ContainsRune(word+item, 0) || len(word)+len(item) > 1<<16 {
			return
		}
		j := job{image: "busybox", words: []string{word, "{}"}, each: true}
		doc, err := j.document(nil)
		if err != nil {
			t.Fatal(err)
		}
		g, problems := front.Compile("f", doc, front.Options{})
		if g == nil {
			t.Fatalf("%v in\n%s", problems, doc)
		}
		task, err := g.Templates["main/run"].Leaf.Render(workflowtest.Inputs(map[string]any{"item": item}))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(word, "{}", item); task.Args[0] != want || task.Args[1] != item {
			t.Errorf("%q with %q is %q", word, item, task.Args)
		}
	})
}

func TestJobSettings(t *testing.T) {
	j := job{image: "registry.example.org:5000/team/app", each: true, parallelism: 7, failFast: true, retries: 2, timeout: config.Duration(90 * time.Second), cpu: "500m", memory: "64Mi",
		isolation: "overlay", env: []string{"A=b=c", "B=${{", "HOME"}}
	doc, err := j.document(func(k string) string { return "value of " + k })
	if err != nil {
		t.Fatal(err)
	}
	g, problems := front.Compile("f", doc, front.Options{})
	if g == nil {
		t.Fatalf("%v in\n%s", problems, doc)
	}
	tmpl := g.Templates["main/run"]
	task, err := tmpl.Leaf.Render(workflowtest.Inputs(map[string]any{"item": "x"}))
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, e := range task.Env {
		env[e.Name] = e.Value
	}
	main := g.Templates["main"]
	if env["A"] != "b=c" || env["B"] != "${{" || env["HOME"] != "value of HOME" || task.CPU != 500 || task.Memory != 64<<20 || task.Isolation != "overlay" ||
		tmpl.Timeout != 90*time.Second || tmpl.Retry == nil || !main.FailFast || main.DAG.Calls[0].Each.Parallelism != 7 || g.Name != "app-" {
		t.Errorf("it makes %+v of\n%s\n%s", task, doc, g)
	}
	for _, bad := range []job{{image: "a", retries: -1}, {image: "a", parallelism: -1}, {image: "a", words: []string{"\xff"}}, {image: "a", command: true}} {
		if _, err := bad.document(nil); exitCode(err) != exitUsage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestRunName(t *testing.T) {
	for image, want := range map[string]string{"busybox": "busybox-", "docker.io/library/alpine:3.22": "alpine-", "a/b@sha256:" + strings.Repeat("0", 64): "b-",
		"x/My_App.v2:1": "my-app-v2-", "---": "run-", "": "run-", strings.Repeat("a", 300): strings.Repeat("a", 40) + "-"} {
		if got := runName(image); got != want {
			t.Errorf("%q is called %q, want %q", image, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	run := func(total, active, good, bad, retries int) wire.Run {
		return wire.Run{Tasks: wire.TaskCounts{Total: total, Active: active, Succeeded: good, Failed: bad, Retries: retries}}
	}
	for _, tc := range []struct {
		name    string
		run     wire.Run
		elapsed time.Duration
		width   int
		bar     string
		plain   string
	}{
		{"nothing is known", run(0, 0, 0, 0, 0), 0, 79, "0 running", "0 of 0 done, 0 running"},
		{"it begins", run(10, 2, 0, 0, 0), 100 * time.Millisecond, 79, "[----------------------------] 0/10   0%  2 running", "0 of 10 done, 2 running"},
		{"half of it", run(1000, 50, 480, 20, 3), 30 * time.Second, 99, "[##############--------------] 500/1000  50%  50 running, 20 failed, 3 retries, about 30s to go",
			"500 of 1000 done, 50 running, 20 failed, 3 retries, about 30s to go"},
		{"narrow", run(1000, 50, 480, 20, 3), 30 * time.Second, 40, "500/1000  50%  50 running, 20 failed, 3…", ""},
		{"all", run(3, 0, 3, 0, 0), time.Hour, 79, "[############################] 3/3 100%  0 running", "3 of 3 done, 0 running"},
		{"nearly", run(1_000_000, 1, 999_999, 0, 0), 2 * time.Hour, 79, "[###########################-] 999999/1000000  99%  1 running, about 7ms to go", ""},
	} {
		got := bar(tc.run, tc.elapsed, tc.width)
		if got != tc.bar || len([]rune(got)) > tc.width {
			t.Errorf("%s: the bar is\n%q, want\n%q", tc.name, got, tc.bar)
		}
		if got := plainProgress(tc.run, tc.elapsed); tc.plain != "" && got != tc.plain {
			t.Errorf("%s: the line is\n%q, want\n%q", tc.name, got, tc.plain)
		}
	}
	for d, want := range map[time.Duration]string{1500 * time.Microsecond: "2ms", 12*time.Second + 300*time.Millisecond: "12s", 61 * time.Second: "1m01s", 3*time.Hour + 5*time.Minute: "3h05m", 100 * time.Hour: "4 days"} {
		if got := roughly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// Problems of several files stand at their own lines.
func TestSourcesPlaces(t *testing.T) {
	s := &sources{files: []string{"a", "b"}, first: []int{0, 4}}
	for line, want := range map[int]string{1: "a:1", 4: "a:4", 5: "b:1", 9: "b:5", 0: "a:0"} {
		p := s.place(workflow.Problem{Line: line})
		if got := fmt.Sprintf("%s:%d", p.File, p.Line); got != want {
			t.Errorf("line %d is %s, want %s", line, got, want)
		}
	}
}

func TestCheckedList(t *testing.T) {
	for text, ok := range map[string]bool{"": true, "[1]": true, "a\nb": true, `{"a": 1}`: true, "{\"a\": 1}\n{\"a\": 2}\n": true, "{\n \"a\": 1\n}": false, "\ufeff[1]": true} {
		r, err := checkedList(strings.NewReader(text))
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if ok {
			b := make([]byte, 10)
			n, _ := r.Read(b)
			if got := string(b[:n]); !strings.HasPrefix(strings.TrimPrefix(text, "\ufeff"), got) {
				t.Errorf("%q goes out as %q", text, got)
			}
		}
	}
}
