// Package cri looks at one node through its container runtime (containerd,
// CRI-O) and says which images it uses.
//
// It owns the connection to the runtime's socket, its stream of events, where
// there is one, and its lists, which are the truth: a container that lives for
// a second is told by an event or found among those that ended. It promises to
// fail rather than to answer without the runtime, and to ask for nothing but
// lists, statuses and events. It starts, stops and removes nothing.
package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

const (
	// DefaultSocket is where containerd listens.
	DefaultSocket = "unix:///run/containerd/containerd.sock"

	maxMessage  = 64 << 20 // bytes of an answer: nodes have thousands of images
	callTimeout = 10 * time.Second
	// pollEvery is how often containers are listed where there are no events
	// (containerd before 1.7). Containers that ended stay in the list until the
	// kubelet removes them, which is later.
	pollEvery  = time.Second
	maxBackoff = 30 * time.Second
)

// Config of a [Node].
type Config struct {
	// Socket of the runtime, as unix:///path; DefaultSocket when empty.
	Socket string
	// Place begins all subjects: the name of the cluster, or of the host.
	Place string
	// Node is the name that the kubelet adds to those of static pods. May be
	// empty.
	Node string
	// Kind stands before the names of pods in subjects; "Pod" in a cluster, so
	// that they are as its own agent calls pods without an owner. May be empty.
	Kind string
}

// Deps of a [Node].
type Deps struct {
	Clock clock.Clock
	Log   *slog.Logger
}

// A Node is an [agent.Source]. It is safe for concurrent use.
type Node struct {
	cfg     Config
	clock   clock.Clock
	log     *slog.Logger
	conn    *grpc.ClientConn
	runtime runtime.RuntimeServiceClient
	images  runtime.ImageServiceClient

	looking sync.Mutex // one look at a time
	mu      sync.Mutex
	seen    func(...usage.Use)
	known   map[string]*container
}

// A container is what is known of one that is, or was a moment ago.
type container struct {
	subject  string
	digests  []image.Digest
	started  int64 // nanoseconds of the Unix epoch; 0: not yet, or not known
	finished int64
}

// New returns a node that is not looked at until [Node.Run].
func New(cfg Config, d Deps) (*Node, error) {
	if cfg.Place == "" {
		return nil, errors.New("the node needs a name: it tells hosts apart in reports")
	}
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if strings.HasPrefix(cfg.Socket, "/") {
		cfg.Socket = "unix://" + cfg.Socket
	}
	if !strings.HasPrefix(cfg.Socket, "unix:///") {
		return nil, fmt.Errorf("socket %q: write unix:///path/to/the.sock", cfg.Socket)
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	conn, err := grpc.NewClient(cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connect to the runtime at %s: %w", cfg.Socket, err)
	}
	return &Node{cfg: cfg, clock: d.Clock, log: d.Log, conn: conn, seen: func(...usage.Use) {},
		runtime: runtime.NewRuntimeServiceClient(conn), images: runtime.NewImageServiceClient(conn), known: map[string]*container{}}, nil
}

// Close ends the connection.
func (n *Node) Close() error { return n.conn.Close() }

// Run implements [agent.Source]. It ends with ctx only: a runtime that is away
// may come back.
func (n *Node) Run(ctx context.Context, seen func(...usage.Use)) error {
	n.mu.Lock()
	n.seen = seen
	n.mu.Unlock()
	for wait := time.Second; ; {
		err := n.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case status.Code(err) == codes.Unimplemented:
			n.log.Info("the runtime has no event stream; listing its containers instead", "every", pollEvery)
			return n.poll(ctx)
		case err == nil: // there were events before it broke
			wait = time.Second
		}
		n.log.Debug("the runtime's events ended; asking again", "err", err, "in", wait)
		if err := clock.Sleep(ctx, n.clock, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxBackoff)
	}
}

// follow reads events until they end. The error is nil if there were any.
func (n *Node) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := n.runtime.GetContainerEvents(ctx, &runtime.GetEventsRequest{})
	if err != nil {
		return err
	}
	// What happened before the stream began. A runtime without events says so
	// with the first of them only.
	if _, err := n.look(ctx); err != nil {
		return err
	}
	for some := false; ; some = true {
		e, err := events.Recv()
		if err != nil {
			if some {
				return nil
			}
			return err
		}
		n.event(ctx, e)
	}
}

// poll lists containers for ever.
func (n *Node) poll(ctx context.Context) error {
	for {
		if _, err := n.look(ctx); err != nil {
			n.log.Debug("the runtime cannot be asked", "err", err)
		}
		if err := clock.Sleep(ctx, n.clock, pollEvery); err != nil {
			return err
		}
	}
}

// event takes one event. It holds the statuses of all containers of the pod.
func (n *Node) event(ctx context.Context, e *runtime.ContainerEventResponse) {
	if e.GetContainerEventType() == runtime.ContainerEventType_CONTAINER_CREATED_EVENT {
		return // it has not started
	}
	var st *runtime.ContainerStatus
	for _, s := range e.GetContainersStatuses() {
		if s.GetId() == e.GetContainerId() {
			st = s
		}
	}
	if st == nil {
		if e.GetContainerId() == e.GetPodSandboxStatus().GetId() {
			return // of the sandbox itself
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		r, err := n.runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: e.GetContainerId()})
		if err != nil {
			return // a sandbox, or removed: its start was told before
		}
		st = r.GetStatus()
	}
	m := e.GetPodSandboxStatus().GetMetadata()
	n.tell(n.take(st, m.GetNamespace(), m.GetName(), nil))
}

// take notes the status of a container and returns what was not known: that it
// started or ended. byID may be nil.
func (n *Node) take(st *runtime.ContainerStatus, namespace, pod string, byID map[string][]image.Digest) []usage.Use {
	c := &container{subject: n.subject(st.GetLabels(), namespace, pod), digests: digests(st, byID), started: st.GetStartedAt(), finished: st.GetFinishedAt()}
	if st.GetState() == runtime.ContainerState_CONTAINER_RUNNING {
		c.finished = 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.known[st.GetId()]
	n.known[st.GetId()] = c
	var at int64
	switch {
	case before != nil && before.finished != 0: // all was told
	case c.finished != 0:
		at = c.finished
	case c.started != 0 && (before == nil || before.started == 0):
		at = c.started
	}
	if at == 0 || c.started == 0 {
		return nil
	}
	var out []usage.Use
	for _, d := range c.digests {
		out = append(out, usage.Use{Digest: d, Source: usage.Container, Subject: c.subject, At: time.Unix(0, at).UTC()})
	}
	return out
}

func (n *Node) tell(uses []usage.Use) {
	if len(uses) == 0 {
		return
	}
	n.mu.Lock()
	seen := n.seen
	n.mu.Unlock()
	seen(uses...)
}

// Snapshot implements [agent.Source].
func (n *Node) Snapshot(ctx context.Context) (agent.Snapshot, error) { return n.look(ctx) }

// look lists everything, tells what started and ended since the last look, and
// returns what runs.
func (n *Node) look(ctx context.Context) (agent.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n.looking.Lock()
	defer n.looking.Unlock()
	fail := func(what string, err error) (agent.Snapshot, error) {
		return agent.Snapshot{}, fmt.Errorf("list %s of the runtime at %s: %w", what, n.cfg.Socket, err)
	}
	images, err := n.images.ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return fail("images", err)
	}
	sandboxes, err := n.runtime.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return fail("pods", err)
	}
	list, err := n.runtime.ListContainers(ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return fail("containers", err)
	}
	var snap agent.Snapshot
	add := func(subject string, all []image.Digest) {
		for _, d := range all {
			snap.Uses = append(snap.Uses, usage.Use{Digest: d, Source: usage.Container, Subject: subject})
		}
	}
	byID := map[string][]image.Digest{}
	for _, i := range images.GetImages() {
		var all []image.Digest
		for _, s := range append([]string{i.GetId()}, i.GetRepoDigests()...) {
			all = appendDigest(all, s)
		}
		byID[i.GetId()] = all
		for _, name := range i.GetRepoTags() {
			byID[name] = all
		}
		if i.GetPinned() { // what the runtime itself needs to start any pod
			add(agent.Subject(n.cfg.Place, "runtime"), all)
		}
	}
	pods := map[string]*runtime.PodSandboxMetadata{}
	for _, s := range sandboxes.GetItems() {
		pods[s.GetId()] = s.GetMetadata()
	}
	listed := map[string]bool{}
	var told []usage.Use
	for _, c := range list.GetContainers() {
		listed[c.GetId()] = true
		if n.settled(c) {
			continue
		}
		r, err := n.runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: c.GetId()})
		if status.Code(err) == codes.NotFound {
			continue // removed since the list
		}
		if err != nil {
			return fail("containers", err)
		}
		m := pods[c.GetPodSandboxId()]
		told = append(told, n.take(r.GetStatus(), m.GetNamespace(), m.GetName(), byID)...)
	}
	n.tell(told)
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, c := range n.known {
		switch {
		case !listed[id]:
			delete(n.known, id)
		case c.started != 0 && c.finished == 0:
			add(c.subject, c.digests)
		}
	}
	return snap, nil
}

// settled reports whether the list says nothing new of a container, so that its
// status need not be asked for.
func (n *Node) settled(c *runtime.Container) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := n.known[c.GetId()]
	if k == nil {
		return false
	}
	switch c.GetState() {
	case runtime.ContainerState_CONTAINER_RUNNING:
		return k.started != 0 && k.finished == 0
	case runtime.ContainerState_CONTAINER_EXITED:
		return k.finished != 0
	}
	return k.started == 0
}

// subject names the workload of a container: what its pod's name says of it.
func (n *Node) subject(labels map[string]string, namespace, pod string) string {
	if namespace == "" {
		namespace = labels["io.kubernetes.pod.namespace"]
	}
	if pod == "" {
		pod = labels["io.kubernetes.pod.name"]
	}
	if pod == "" {
		pod = "container"
	}
	if n.cfg.Node != "" {
		pod = strings.TrimSuffix(pod, "-"+n.cfg.Node)
	}
	return agent.Subject(n.cfg.Place, namespace, n.cfg.Kind, agent.Stem(pod))
}

// digests are all by which the images of a container may be known: of what was
// pulled, of its config, and of image volumes.
func digests(st *runtime.ContainerStatus, byID map[string][]image.Digest) []image.Digest {
	var out []image.Digest
	names := []string{st.GetImageRef(), st.GetImageId(), st.GetImage().GetImage()}
	for _, m := range st.GetMounts() {
		names = append(names, m.GetImage().GetImage())
	}
	for i, s := range names {
		// The name a container was made by may have moved to another image:
		// it counts when it is a digest, or where there is nothing else.
		if _, isDigest := agent.ParseImageID(s); !isDigest && i < 3 && len(out) > 0 {
			continue
		}
		out = appendDigest(out, s)
		for _, d := range byID[s] {
			out = appendDigest(out, string(d))
		}
	}
	return out
}

func appendDigest(all []image.Digest, s string) []image.Digest {
	d, ok := agent.ParseImageID(s)
	if !ok {
		return all
	}
	for _, o := range all {
		if o == d {
			return all
		}
	}
	return append(all, d)
}
