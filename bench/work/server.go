package main

import (
	"context"
	"encoding/json"
	"fmt"
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

// fan is a workflow of so many tasks that do nothing.
func fan(name string, n int) *workflow.Graph {
	return &workflow.Graph{Front: "cairn", Name: name, Namespace: "default", Entry: "main", Documents: []byte(strconv.Itoa(n)), Templates: map[string]*workflow.Template{
		"main": {Name: "main", DAG: &workflow.DAG{Calls: []*workflow.Call{{Name: "each", Template: "task",
			Args: []workflow.Arg{{Name: "n", Value: path{"item"}}}, Each: &workflow.Each{Count: &workflow.Sequence{Count: number(n)}}}}}},
		"task": {Name: "task", Inputs: []workflow.Input{{Name: "n"}}, Leaf: nothing{}},
	}}
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

type number int

func (n number) String() string                              { return strconv.Itoa(int(n)) }
func (n number) Eval(workflow.Scope) (workflow.Value, error) { return float64(n), nil }

// nothing is a task whose one argument is its item.
type nothing struct{}

func (nothing) Images() []string { return []string{"registry.example/true"} }
func (nothing) Render(s workflow.Scope) (*task.Task, error) {
	v, _ := s.Lookup("inputs", "parameters", "n")
	return &task.Task{Image: "registry.example/true", Command: []string{"/true"}, Args: []string{strconv.Itoa(int(v.(float64)))}}, nil
}

func compile(documents []byte) (*workflow.Graph, error) {
	n, err := strconv.Atoi(string(documents))
	if err != nil {
		return nil, err
	}
	return fan("bench", n), nil
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
	s, err := work.New(ctx, work.Config{}, work.Deps{DB: d, Clock: clock.Real(), Compile: compile})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/work/", door.New(s, nil))
	mux.HandleFunc("POST /submit", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		id, err := s.Submit(r.Context(), fan("bench", n), "bench", work.Options{})
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
