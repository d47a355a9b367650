package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

const page = 500

// apiServer has pods, fifty of each Deployment, and nothing else.
type apiServer struct {
	pages [][]byte // of the list, in protobuf
}

func newAPIServer(pods int) (*apiServer, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	codec := protobuf.NewSerializer(scheme, scheme)
	s := &apiServer{}
	for from := 0; from < pods; from += page {
		l := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
		for i := from; i < min(from+page, pods); i++ {
			l.Items = append(l.Items, podOf(i))
		}
		if from+page < pods {
			l.Continue = fmt.Sprint(from/page + 1)
		}
		var b strings.Builder
		if err := codec.Encode(l, &b); err != nil {
			return nil, err
		}
		s.pages = append(s.pages, []byte(b.String()))
	}
	return s, nil
}

// podOf is a pod with about as much in it as those of people have.
func podOf(i int) corev1.Pod {
	set := fmt.Sprintf("web%d-5d9c7b8f6d", i/50)
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("team", i%40), Name: fmt.Sprintf("%s-%05d", set, i), UID: "5f0f8a1c-0000-0000-0000-000000000000", ResourceVersion: "1",
		Labels:          map[string]string{"app": "web", "pod-template-hash": "5d9c7b8f6d"},
		Annotations:     map[string]string{"team.example.org/note": strings.Repeat("x", 1000)},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: set, Controller: new(true)}}}}
	for range 30 {
		p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: "kubelet", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:app":{},"f:pod-template-hash":{}}}}`)})
	}
	p.Spec.NodeName = fmt.Sprint("node", i%5000)
	p.Status.Phase = corev1.PodRunning
	for c := range 2 {
		name := fmt.Sprint("c", c)
		env := []corev1.EnvVar{}
		for e := range 20 {
			env = append(env, corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", e), Value: strings.Repeat("v", 40)})
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: "registry.example.org/web:1", Env: env})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, ImageID: "registry.example.org/web@" + string(digestOf(2_000_000+i/50+c*1_000_000)),
			ContainerID: "containerd://x", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1_700_000_000, 0)}}})
	}
	return p
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	resource := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch {
	case q.Get("sendInitialEvents") == "true": // an old server: the dear way
		w.WriteHeader(http.StatusUnprocessableEntity)
	case q.Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case resource == "pods":
		n := 0
		_, _ = fmt.Sscan(q.Get("continue"), &n)
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		_, _ = w.Write(s.pages[n])
	default:
		group := strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(r.URL.Path, "/"+resource), "/apis/"), "/api/")
		kinds := map[string]string{"nodes": "Node", "podtemplates": "PodTemplate", "replicationcontrollers": "ReplicationController", "deployments": "Deployment", "replicasets": "ReplicaSet",
			"statefulsets": "StatefulSet", "daemonsets": "DaemonSet", "controllerrevisions": "ControllerRevision", "cronjobs": "CronJob", "jobs": "Job"}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": group, "kind": kinds[resource] + "List", "metadata": map[string]any{"resourceVersion": "1"}, "items": []any{}})
	}
}

func (s settings) cluster(ctx context.Context, out io.Writer, cairn string, l *ledger) error {
	api, err := newAPIServer(s.pods)
	if err != nil {
		return err
	}
	size := 0
	for _, p := range api.pages {
		size += len(p)
	}
	server := httptest.NewServer(api)
	defer func() {
		server.CloseClientConnections()
		server.Close()
	}()
	dir, err := os.MkdirTemp("", "cairn-bench-agent")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`, server.URL)), 0o600); err != nil {
		return err
	}
	l.reset()
	began := time.Now()
	cmd, stop, err := start(ctx, cairn, "agent", "--cluster", "bench", "--kubeconfig", kubeconfig, "--server", l.URL, "--period", "10s", "--log-level", "error")
	if err != nil {
		return err
	}
	defer stop()
	var first time.Duration
	var uses int
	var bytes int64
	if err := wait("the first report of the cluster", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		first, uses, bytes = l.applied.Sub(began), l.uses, l.bytes
		return !l.applied.IsZero()
	}); err != nil {
		return err
	}
	time.Sleep(25 * time.Second)
	c := measure(cmd.Process.Pid)
	l.mu.Lock()
	later := l.bytes - bytes
	l.mu.Unlock()
	fmt.Fprintf(out, "\n## A cluster\n\n%d pods of two containers, fifty to a Deployment, %d bytes each.\n\n", s.pods, size/s.pods)
	fmt.Fprintf(out, "| | |\n|---|---|\n| from the start of the process to the first report in force | %.1f s |\n| uses in it | %d, %d KiB compressed |\n| restating it, twice | %d bytes |\n| memory (RSS), then and at most | %.0f MiB, %.0f MiB |\n", first.Seconds(), uses, bytes/1024, later, c.rss, c.peak)
	return nil
}
