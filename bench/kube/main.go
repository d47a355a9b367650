// Command kube measures what runs cost a Kubernetes control plane: how often
// its API server is written to, by its own count, how etcd grows, how long
// others wait meanwhile, and how soon a task prints; beside a plain Indexed Job
// in the same cluster.
//
// It owns the clusters, a real node and nodes that only pretend, the workers it
// plays on these, and the report. The server runs in a process of its own, so
// that its memory is its own; all share the processors of this machine. What
// cairn serve has besides (registry, accounts, stored logs) is not in it.
//
//	go run ./bench/kube -o bench/kube.md
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"cairn.dev/cairn/test/cluster"
)

type settings struct {
	n       int // tasks, and workflows of one task
	large   int // tasks of the large workflow
	samples int
	// patience is how long the large workflow may take on the real node, by what
	// the small one took.
	patience time.Duration
	plain    int // pods of the plain Job on the real node
	many     int // workflows with a Job each there
	only     []string
}

// onReal are the parts for which a real node is needed.
var onReal = []string{"tasks", "copy", "many", "first", "warm"}

// choices are what may be measured alone.
var choices = append(onReal, "kwok", "argo")

func (s settings) wants(part string) bool { return len(s.only) == 0 || slices.Contains(s.only, part) }

func main() {
	var s settings
	out := flag.String("o", "", "file to write the report to")
	flag.IntVar(&s.n, "n", 1000, "tasks, and workflows of one task")
	flag.IntVar(&s.large, "large", 100_000, "tasks of the large workflow")
	flag.IntVar(&s.samples, "samples", 30, "workflows whose first line is waited for")
	flag.DurationVar(&s.patience, "patience", 10*time.Minute, "how long the large workflow may take on the real node; else it is not run there")
	flag.IntVar(&s.plain, "plain", 200, "pods of the plain Job on the real node, from which as many as tasks are reckoned; 0: none")
	flag.IntVar(&s.many, "many", 1000, "workflows of one task with a Job each on the real node, which starts only so many pods a second")
	only := flag.String("only", "", "only these, with commas: "+strings.Join(choices, ", "))
	small := flag.Bool("small", false, "a tenth of all, to see whether it works")
	server := flag.String("serve", "", "be the server (what the benchmark calls itself with)")
	url := flag.String("fetch", "", "print what an address answers (likewise)")
	looks := flag.String("look", "", "be somebody who looks at pods (likewise)")
	flag.Parse()
	if *small {
		s.n, s.large, s.samples, s.plain, s.many = s.n/10, s.large/10, s.samples/10, s.plain/10, s.many/10
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	var err error
	switch {
	case *server != "":
		err = serve(*server)
	case *looks != "":
		err = look(*looks)
	case *url != "":
		err = fetch(*url)
	default:
		err = run(s, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/kube:", err)
		os.Exit(1)
	}
}

func run(s settings, out string) error {
	for _, o := range s.only {
		if !slices.Contains(choices, o) {
			return fmt.Errorf("-only %q: choose from %s", o, strings.Join(choices, ", "))
		}
	}
	if s.n < 1 || s.large < s.n || s.samples < 1 {
		return fmt.Errorf("-n %d, -large %d, -samples %d: none may be below 1, and large not below n", s.n, s.large, s.samples)
	}
	if why := cluster.Unable(); why != "" {
		return fmt.Errorf("%s", why)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "cairn-bench-kube")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	begin := time.Now()
	var r report
	if slices.ContainsFunc(onReal, s.wants) {
		if err := s.real(ctx, &r, dir); err != nil {
			return fmt.Errorf("real node: %w", err)
		}
	}
	if s.wants("kwok") || s.wants("argo") {
		if err := s.kwok(ctx, &r, dir); err != nil {
			return fmt.Errorf("kwok: %w", err)
		}
	}
	text := fmt.Sprintf(`# Runs on Kubernetes, measured

    make bench-kube

On %d processors (%s/%s), which etcd, API server, controllers, the nodes and Cairn share, the last two at a lower priority, as they have machines of their
own elsewhere; it took %s. A real node is a containerd and a kubelet; on kwok nodes and containers only pretend, and one worker is played for each running pod.
Writes are POST, PUT, PATCH and DELETE in the API server's own apiserver_request_total, events included, leases and status of nodes not.

%s`, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, time.Since(begin).Round(time.Second), r.String())
	if out == "" {
		_, err := io.WriteString(os.Stdout, text)
		return err
	}
	return os.WriteFile(out, []byte(text), 0o644)
}
