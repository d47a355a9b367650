package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"syscall"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/door"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// fan is a workflow of tasks that do nothing, one for each item of a list that
// the server keeps as a file.
func fan(list string) *workflow.Graph {
	return &workflow.Graph{Front: "cairn", Name: "bench", Namespace: "default", Entry: "main", Documents: []byte(list), Templates: map[string]*workflow.Template{
		"main": {Name: "main", DAG: &workflow.DAG{Calls: []*workflow.Call{{Name: "each", Template: "task",
			Args: []workflow.Arg{{Name: "n", Value: path{"item"}}}, Each: &workflow.Each{Items: file(list)}}}}},
		"task": {Name: "task", Inputs: []workflow.Input{{Name: "n"}}, Leaf: nothing{}},
	}}
}

// compile reads a workflow back: its documents are the name of its list.
func compile(documents []byte) (*workflow.Graph, error) { return fan(string(documents)), nil }

type file string

func (f file) String() string { return string(f) }
func (f file) Eval(workflow.Scope) (workflow.Value, error) {
	return &workflow.File{Digest: string(f)}, nil
}

// folder keeps blobs as files.
type folder string

func (f folder) Put(context.Context, string, io.Reader) (string, int64, error) {
	return "", 0, errors.New("nothing is kept here")
}

func (f folder) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	return os.Open(filepath.Join(string(f), digest))
}

func (f folder) Keep(context.Context, string, string) (bool, error) { return true, nil }

// items writes the list of a run: names of files, as people have them.
func (f folder) items(n int) (string, error) {
	name := "items-" + strconv.Itoa(n)
	out, err := os.Create(filepath.Join(string(f), name))
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(out)
	for i := range n {
		fmt.Fprintf(w, "%c\"photos/2026/11/%07d.jpg\"", "[,"[min(i, 1)], i)
	}
	fmt.Fprint(w, "]")
	return name, errors.Join(w.Flush(), out.Close())
}

type path []string

func (p path) String() string { return fmt.Sprint([]string(p)) }
func (p path) Eval(s workflow.Scope) (workflow.Value, error) {
	v, ok := s.Lookup(p...)
	if !ok {
		return nil, fmt.Errorf("there is no %v", p)
	}
	return v, nil
}

// nothing is a task whose one argument is its item.
type nothing struct{}

func (nothing) Images() []string { return []string{"registry.example/true"} }
func (nothing) Render(s workflow.Scope) (*task.Task, error) {
	v, _ := s.Lookup("inputs", "parameters", "n")
	return &task.Task{Image: "registry.example/true", Command: []string{"/true"}, Args: []string{v.(string)}}, nil
}

// child is the process of the server. It prints its address and ends with its
// standard input.
func child(dir, profile string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "work.db"), Sync: db.Full, Schema: work.Schema})
	if err != nil {
		return err
	}
	defer d.Close()
	s, err := work.New(ctx, work.Config{}, work.Deps{DB: d, Clock: clock.Real(), Blobs: folder(dir), Compile: compile})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/work/", door.New(s, nil))
	mux.HandleFunc("POST /list", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		name, err := folder(dir).items(n)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, name)
	})
	mux.HandleFunc("POST /submit", func(w http.ResponseWriter, r *http.Request) {
		id, err := s.Submit(r.Context(), fan(r.URL.Query().Get("list")), "bench", work.Options{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, id)
	})
	mux.HandleFunc("GET /run/{id}", func(w http.ResponseWriter, r *http.Request) {
		i, err := s.Get(r.Context(), r.PathValue("id"))
		if err == nil {
			_, _, err = s.Nodes(r.Context(), i.ID, "", "", 100, machine.Filter{})
		}
		if err == nil {
			_, _, err = s.Nodes(r.Context(), i.ID, "2", "", 100, machine.Filter{})
		}
		if err == nil {
			_, _, err = s.Runs(r.Context(), work.RunFilter{}, "", 100)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(i)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	go func() { // the parent's end is ours
		_, _ = os.Stdin.Read(make([]byte, 1))
		stop()
	}()
	err = s.Run(ctx)
	_ = server.Close()
	return err
}
