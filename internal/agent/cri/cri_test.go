package cri

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/usage"
)

var day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func dg(s string) string { return "sha256:" + fmt.Sprintf("%x", s) + strings.Repeat("0", 64-2*len(s)) }

// fake is a runtime.
type fake struct {
	runtime.UnimplementedRuntimeServiceServer
	runtime.UnimplementedImageServiceServer

	mu         sync.Mutex
	events     chan *runtime.ContainerEventResponse // nil: it has none
	streams    int
	containers map[string]*runtime.ContainerStatus
	images     []*runtime.Image
	statuses   int // how often one was asked for
	err        error
}

func (f *fake) GetContainerEvents(_ *runtime.GetEventsRequest, s grpc.ServerStreamingServer[runtime.ContainerEventResponse]) error {
	f.mu.Lock()
	events := f.events
	f.streams++
	f.mu.Unlock()
	if events == nil {
		return status.Error(codes.Unimplemented, "method GetContainerEvents not implemented")
	}
	for {
		select {
		case <-s.Context().Done():
			return nil
		case e := <-events:
			if e == nil {
				return status.Error(codes.Unavailable, "the runtime restarts")
			}
			if err := s.Send(e); err != nil {
				return err
			}
		}
	}
}

func (f *fake) ListImages(context.Context, *runtime.ListImagesRequest) (*runtime.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtime.ListImagesResponse{Images: f.images}, f.err
}

func (f *fake) ListPodSandbox(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtime.ListPodSandboxResponse{Items: []*runtime.PodSandbox{pod("web-7d4b9c8f6d-x2x4z")}}, f.err
}

func pod(name string) *runtime.PodSandbox {
	return &runtime.PodSandbox{Id: name, Metadata: &runtime.PodSandboxMetadata{Namespace: "shop", Name: name}}
}

func (f *fake) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &runtime.ListContainersResponse{}
	for _, c := range f.containers {
		r.Containers = append(r.Containers, &runtime.Container{Id: c.Id, PodSandboxId: "web-7d4b9c8f6d-x2x4z", State: c.State})
	}
	return r, f.err
}

func (f *fake) ContainerStatus(_ context.Context, r *runtime.ContainerStatusRequest) (*runtime.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses++
	c := f.containers[r.GetContainerId()]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &runtime.ContainerStatusResponse{Status: c}, f.err
}

// put sets the state of a container: it began and ended at these seconds; 0
// means not.
func (f *fake) put(id, imageRef string, began, ended int) *runtime.ContainerStatus {
	st := &runtime.ContainerStatus{Id: id, ImageRef: imageRef, State: runtime.ContainerState_CONTAINER_CREATED}
	if began != 0 {
		st.State, st.StartedAt = runtime.ContainerState_CONTAINER_RUNNING, day0.Add(time.Duration(began)*time.Second).UnixNano()
	}
	if ended != 0 {
		st.State, st.FinishedAt = runtime.ContainerState_CONTAINER_EXITED, day0.Add(time.Duration(ended)*time.Second).UnixNano()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id] = st
	return st
}

func (f *fake) remove(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
}

// send tells of the container in an event.
func (f *fake) send(t runtime.ContainerEventType, podName string, st *runtime.ContainerStatus) {
	p := pod(podName)
	f.events <- &runtime.ContainerEventResponse{ContainerId: st.Id, ContainerEventType: t, ContainersStatuses: []*runtime.ContainerStatus{st},
		PodSandboxStatus: &runtime.PodSandboxStatus{Id: p.Id, Metadata: p.Metadata}}
}

type node struct {
	*Node
	t     *testing.T
	fake  *fake
	clock *clock.Fake
	mu    sync.Mutex
	told  []usage.Use
}

func start(t *testing.T, f *fake) *node {
	t.Helper()
	if f.containers == nil {
		f.containers = map[string]*runtime.ContainerStatus{}
	}
	socket := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(s, f)
	runtime.RegisterImageServiceServer(s, f)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	n := &node{t: t, fake: f, clock: clock.NewFake(day0)}
	n.Node, err = New(Config{Socket: "unix://" + socket, Place: "prod", Kind: "Pod", Node: "node-a"}, Deps{Clock: n.clock})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run follows the node until the test ends.
func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- n.Run(ctx, func(uses ...usage.Use) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.told = append(n.told, uses...)
		})
	}()
	n.t.Cleanup(func() {
		cancel()
		<-done
		n.Close()
	})
}

func lines(uses []usage.Use) []string {
	var out []string
	for _, u := range uses {
		l := fmt.Sprintf("%s %s %s", u.Source, strings.TrimRight(string(u.Digest[7:]), "0"), u.Subject)
		if !u.At.IsZero() {
			l += fmt.Sprintf(" @%d", int(u.At.Sub(day0).Seconds()))
		}
		out = append(out, l)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (n *node) heard() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return lines(n.told)
}

func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("never came: %s; told %v", what, n.heard())
		}
	}
}

func (n *node) snapshot() []string {
	s, err := n.Snapshot(n.t.Context())
	if err != nil {
		return []string{err.Error()}
	}
	return lines(s.Uses)
}

func TestSnapshot(t *testing.T) {
	f := &fake{containers: map[string]*runtime.ContainerStatus{}, images: []*runtime.Image{
		{Id: dg("c"), RepoTags: []string{"x:1"}, RepoDigests: []string{"x@" + dg("m"), "y@" + dg("i")}},
		{Id: dg("p"), RepoDigests: []string{"pause@" + dg("q")}, Pinned: true},
		{Id: dg("u"), RepoDigests: []string{"unused@" + dg("v")}},
		{Id: dg("w"), RepoTags: []string{"vol:1"}, RepoDigests: []string{"vol@" + dg("z")}},
	}}
	n := start(t, f)
	f.put("runs", dg("c"), 5, 0)
	f.put("created", "x@"+dg("n"), 0, 0)
	f.put("ended", "x@"+dg("e"), 5, 6)
	f.put("byrepo", "x@"+dg("r"), 5, 0).ImageId = dg("s")
	volume := f.put("volume", "x@"+dg("m"), 5, 0)
	volume.Mounts = []*runtime.Mount{{Image: &runtime.ImageSpec{Image: "vol:1"}}, {}, {Image: &runtime.ImageSpec{Image: "d@" + dg("d")}}}
	want := []string{"container 63 prod/shop/Pod/web", "container 6d prod/shop/Pod/web", "container 69 prod/shop/Pod/web", // one image by its three digests
		"container 72 prod/shop/Pod/web", "container 73 prod/shop/Pod/web", "container 7 prod/runtime", "container 71 prod/runtime",
		"container 77 prod/shop/Pod/web", "container 7a prod/shop/Pod/web", "container 64 prod/shop/Pod/web"}
	slices.Sort(want)
	if got := n.snapshot(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	asked := f.statuses
	n.snapshot()
	if f.statuses != asked {
		t.Errorf("asked for %d statuses again of what does not change", f.statuses-asked)
	}
	f.err = status.Error(codes.Unavailable, "gone")
	if got := n.snapshot(); len(got) != 1 || !strings.Contains(got[0], "list images of the runtime at unix:///") {
		t.Errorf("without a runtime: %q", got)
	}
}

func TestEvents(t *testing.T) {
	f := &fake{events: make(chan *runtime.ContainerEventResponse)}
	n := start(t, f)
	f.put("old", "x@"+dg("o"), 1, 2)
	n.run()
	started, stopped := runtime.ContainerEventType_CONTAINER_STARTED_EVENT, runtime.ContainerEventType_CONTAINER_STOPPED_EVENT
	n.until("what ended before", func() bool { return slices.Equal(n.heard(), []string{"container 6f prod/shop/Pod/web @2"}) })
	f.send(runtime.ContainerEventType_CONTAINER_CREATED_EVENT, "job-x2x4z", f.put("a", "x@"+dg("a"), 0, 0))
	f.send(started, "job-x2x4z", f.put("a", "x@"+dg("a"), 10, 0))
	f.send(stopped, "job-x2x4z", f.put("a", "x@"+dg("a"), 10, 11))
	f.remove("a")
	n.until("a container of a second", func() bool {
		return slices.Equal(n.heard(), []string{"container 61 prod/shop/Pod/job @10", "container 61 prod/shop/Pod/job @11", "container 6f prod/shop/Pod/web @2"})
	})
	// The stream breaks; what started meanwhile is found when it is back.
	f.events <- nil
	f.put("b", "x@"+dg("b"), 20, 21)
	n.until("what came and went without an event", func() bool {
		n.clock.Advance(time.Second)
		return slices.Contains(n.heard(), "container 62 prod/shop/Pod/web @21")
	})
}

func TestWithoutEvents(t *testing.T) {
	f := &fake{}
	n := start(t, f)
	n.run()
	n.until("polling", func() bool { return n.clock.Waiting() > 0 })
	f.put("a", "x@"+dg("a"), 10, 0)
	n.until("a start", func() bool {
		n.clock.Advance(pollEvery)
		return slices.Equal(n.heard(), []string{"container 61 prod/shop/Pod/web @10"})
	})
	f.put("b", "x@"+dg("b"), 10, 11)
	n.until("one that ended between two looks", func() bool {
		n.clock.Advance(pollEvery)
		return slices.Contains(n.heard(), "container 62 prod/shop/Pod/web @11")
	})
	if f.streams != 1 {
		t.Errorf("asked %d times for events that there are not", f.streams)
	}
}

// 3,000 containers start and end; each is told, and nothing of them is kept.
func TestNothingIsLost(t *testing.T) {
	f := &fake{events: make(chan *runtime.ContainerEventResponse, 100)}
	n := start(t, f)
	n.run()
	const count = 3000
	for i := range count {
		st := f.put(fmt.Sprint(i), fmt.Sprintf("x@sha256:%064x", i+1), 10, 0)
		f.send(runtime.ContainerEventType_CONTAINER_STARTED_EVENT, "job-x2x4z", st)
		f.remove(st.Id)
	}
	n.until("all of them", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		seen := map[string]bool{}
		for _, u := range n.told {
			seen[string(u.Digest)] = true
		}
		return len(seen) == count
	})
	if got := n.snapshot(); len(got) != 0 {
		t.Errorf("%d are still in use", len(got))
	}
	n.Node.mu.Lock()
	defer n.Node.mu.Unlock()
	if len(n.known) != 0 {
		t.Errorf("%d are kept", len(n.known))
	}
}

func TestSubject(t *testing.T) {
	n := start(t, &fake{})
	for _, tt := range []struct{ namespace, pod, labels, want string }{
		{"shop", "web-7d4b9c8f6d-x2x4z", "", "prod/shop/Pod/web"},
		{"kube-system", "etcd-node-a", "", "prod/kube-system/Pod/etcd"}, // static
		{"", "", "io.kubernetes.pod.name=db-0 io.kubernetes.pod.namespace=shop", "prod/shop/Pod/db"},
		{"", "", "", "prod/Pod/container"},
	} {
		labels := map[string]string{}
		for l := range strings.FieldsSeq(tt.labels) {
			k, v, _ := strings.Cut(l, "=")
			labels[k] = v
		}
		if got := n.subject(labels, tt.namespace, tt.pod); got != tt.want {
			t.Errorf("%s/%s: %q, want %q", tt.namespace, tt.pod, got, tt.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{{}, {Place: "x", Socket: "tcp://127.0.0.1:1"}, {Place: "x", Socket: "relative.sock"}} {
		if _, err := New(c, Deps{}); err == nil {
			t.Errorf("New(%+v) succeeded", c)
		}
	}
}
