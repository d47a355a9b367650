package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cairn.dev/cairn/internal/image"
)

// A node is a runtime that only says it runs containers.
type node struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer
	events chan *cri.ContainerEventResponse

	mu         sync.Mutex
	containers map[string]*cri.ContainerStatus
}

func digestOf(n int) image.Digest { return image.Digest(fmt.Sprintf("sha256:%064x", n)) }

func (n *node) GetContainerEvents(_ *cri.GetEventsRequest, s grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	for {
		select {
		case <-s.Context().Done():
			return nil
		case e := <-n.events:
			if err := s.Send(e); err != nil {
				return err
			}
		}
	}
}

func (n *node) ListImages(context.Context, *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	return &cri.ListImagesResponse{}, nil
}

func (n *node) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{}, nil
}

func (n *node) ListContainers(context.Context, *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := &cri.ListContainersResponse{}
	for _, c := range n.containers {
		r.Containers = append(r.Containers, &cri.Container{Id: c.Id, State: c.State})
	}
	return r, nil
}

func (n *node) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &cri.ContainerStatusResponse{Status: n.containers[r.GetContainerId()]}, nil
}

// begin starts a container of an image of its own.
func (n *node) begin(number int, at time.Time) *cri.ContainerStatus {
	st := &cri.ContainerStatus{Id: fmt.Sprint(number), ImageRef: "x@" + string(digestOf(number)), State: cri.ContainerState_CONTAINER_RUNNING, StartedAt: at.UnixNano(),
		Labels: map[string]string{"io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.name": fmt.Sprintf("job%d-x2x4z", number%50)}}
	return st
}

func (s settings) node(ctx context.Context, out io.Writer, cairn, dir string, l *ledger) error {
	socket := filepath.Join(dir, "cri.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	n := &node{events: make(chan *cri.ContainerEventResponse, 1000), containers: map[string]*cri.ContainerStatus{}}
	for i := range s.containers {
		st := n.begin(i+1, time.Now())
		n.containers[st.Id] = st
	}
	g := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(g, n)
	cri.RegisterImageServiceServer(g, n)
	go func() { _ = g.Serve(listener) }()
	defer g.Stop()
	cmd, stop, err := start(ctx, cairn, "agent", "--node", "bench", "--cri", "unix://"+socket, "--server", l.URL, "--period", "10s", "--log-level", "error")
	if err != nil {
		return err
	}
	defer stop()
	applied := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return !l.applied.IsZero()
	}
	if err := wait("the first report", applied); err != nil {
		return err
	}
	// At rest: the containers run and nothing happens.
	rest := measure(cmd.Process.Pid)
	time.Sleep(s.last)
	quiet := measure(cmd.Process.Pid).since(rest)

	// Under way: each second so many start, which live for a moment.
	started := map[image.Digest]time.Time{}
	begun := measure(cmd.Process.Pid)
	tick := time.NewTicker(time.Second / time.Duration(s.rate))
	defer tick.Stop()
	number := 1_000_000
	for end := time.Now().Add(s.last); time.Now().Before(end); <-tick.C {
		number++
		now := time.Now()
		started[digestOf(number)] = now
		n.events <- &cri.ContainerEventResponse{ContainerId: fmt.Sprint(number), ContainerEventType: cri.ContainerEventType_CONTAINER_STARTED_EVENT,
			ContainersStatuses: []*cri.ContainerStatus{n.begin(number, now)}}
	}
	busy := measure(cmd.Process.Pid).since(begun)
	var late []time.Duration
	_ = wait("all starts", func() bool {
		late = late[:0]
		l.mu.Lock()
		defer l.mu.Unlock()
		for d, at := range started {
			if seen, ok := l.seen[d]; ok {
				late = append(late, seen.Sub(at))
			}
		}
		return len(late) == len(started)
	})
	at := quantiles(late)
	fmt.Fprintf(out, "\n## A node\n\n%d containers run all the time. Then %d more start each second for %s, each of an image of its own, and are gone at once.\n\n", s.containers, s.rate, s.last)
	fmt.Fprintf(out, "| | |\n|---|---|\n| memory (RSS), at rest and at most | %.0f MiB, %.0f MiB |\n| processor, at rest | %.2f %% of one |\n| processor, with %d starts/s | %.1f %% of one |\n", quiet.rss, busy.peak, quiet.percent, s.rate, busy.percent)
	fmt.Fprintf(out, "| starts in the ledger | %d of %d |\n| from the start to the ledger, median, p99, at most | %s, %s, %s |\n", len(late), len(started), at(0.5), at(0.99), at(1))
	if len(late) != len(started) {
		return fmt.Errorf("%d of %d starts were lost", len(started)-len(late), len(started))
	}
	return nil
}

// quantiles sorts and returns the delay that so much of them do not exceed.
func quantiles(late []time.Duration) func(q float64) time.Duration {
	slices.Sort(late)
	return func(q float64) time.Duration {
		if len(late) == 0 {
			return 0
		}
		return late[int(q*float64(len(late)-1))].Round(time.Millisecond)
	}
}
