package kube

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"cairn.dev/cairn/internal/usage"
)

var day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// dg is a digest that begins with the letters of s in hex.
func dg(s string) string {
	return "sha256:" + fmt.Sprintf("%x", s) + strings.Repeat("0", 64-2*len(s))
}

// short is what dg was made from.
func short(d string) string {
	hex := strings.TrimPrefix(d, "sha256:")
	var out []byte
	for i := 0; i+1 < len(hex) && hex[i:i+2] != "00"; i += 2 {
		var c byte
		fmt.Sscanf(hex[i:i+2], "%02x", &c)
		out = append(out, c)
	}
	return string(out)
}

func objectMeta(namespace, name string, owners ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: namespace, Name: name}
	for _, o := range owners {
		kind, n, _ := strings.Cut(o, "/")
		m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{Kind: kind, Name: n, Controller: new(true)})
	}
	return m
}

func spec(images ...string) corev1.PodSpec {
	var s corev1.PodSpec
	for i, image := range images {
		s.Containers = append(s.Containers, corev1.Container{Name: fmt.Sprint("c", i), Image: image})
	}
	return s
}

func template(images ...string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: spec(images...)}
}

func after(seconds int) metav1.Time {
	return metav1.NewTime(day0.Add(time.Duration(seconds) * time.Second))
}

// runs is a container that runs since a second; began 0 means never.
func runs(digest string, began int) corev1.ContainerStatus {
	s := corev1.ContainerStatus{ImageID: "x@" + dg(digest)}
	s.State.Running = &corev1.ContainerStateRunning{StartedAt: after(began)}
	return s
}

func ran(digest string, began, ended int) corev1.ContainerStatus {
	s := corev1.ContainerStatus{ImageID: "x@" + dg(digest)}
	s.State.Terminated = &corev1.ContainerStateTerminated{StartedAt: after(began), FinishedAt: after(ended)}
	return s
}

// pod has one container for each status; those without any wait for spec.
func pod(name, owner string, phase corev1.PodPhase, statuses ...corev1.ContainerStatus) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: objectMeta("shop", name)}
	if owner != "" {
		p.ObjectMeta = objectMeta("shop", name, owner)
	}
	p.Spec.NodeName = "n1"
	for i := range statuses {
		statuses[i].Name = fmt.Sprint("c", i)
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: statuses[i].Name, Image: "spec:" + statuses[i].Name})
	}
	p.Status.Phase, p.Status.ContainerStatuses = phase, statuses
	return p
}

// lines are uses as a person reads them, sorted.
func lines(uses []usage.Use) []string {
	var out []string
	for _, u := range uses {
		l := fmt.Sprintf("%s %s %s", u.Source, short(string(u.Digest)), u.Subject)
		if !u.At.IsZero() {
			l += fmt.Sprintf(" @%d", int(u.At.Sub(day0).Seconds()))
		}
		out = append(out, l)
	}
	slices.Sort(out)
	return out
}

func compareLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n  %s\nwant:\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// A workload's image is counted once for each node that runs it.
func TestSnapshotCountsNodes(t *testing.T) {
	m := newModel("prod")
	for n := range 6 {
		p := pod(fmt.Sprint("web-", n), "DaemonSet/web", corev1.PodRunning, runs("a", 5), runs("b", 5))
		p.Spec.NodeName = fmt.Sprint("node-", n%4)
		if n == 3 { // ended: its node counts no more
			p.Status.Phase = corev1.PodSucceeded
		}
		i, err := shrink(p)
		if err != nil {
			t.Fatal(err)
		}
		m.put(i, true)
	}
	got := map[string]int{}
	for _, u := range m.snapshot().Uses {
		got[short(string(u.Digest))] += u.Nodes
	}
	if len(got) != 2 || got["a"] != 3 || got["b"] != 3 {
		t.Errorf("nodes: %v, want 3 of each", got)
	}
}

func TestSnapshot(t *testing.T) {
	never := corev1.ContainerStatus{}
	never.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}
	again := runs("a", 5)
	again.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	again.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{StartedAt: after(1), FinishedAt: after(2)}
	local := runs("a", 5)
	local.ImageID = "docker.io/library/built:here"

	whole := pod("p", "", corev1.PodRunning, runs("a", 5))
	whole.Status.InitContainerStatuses = []corev1.ContainerStatus{ran("i", 1, 2)}
	whole.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{runs("e", 9)}
	whole.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "vol:1"}}}}
	whole.Status.ContainerStatuses[0].VolumeMounts = []corev1.VolumeMountStatus{{Name: "v", VolumeStatus: &corev1.VolumeStatus{Image: &corev1.ImageVolumeStatus{ImageRef: "vol@" + dg("v")}}}}
	unmounted := whole.DeepCopy()
	unmounted.Status.ContainerStatuses[0].VolumeMounts = nil

	static := pod("etcd-n1", "Node/n1", corev1.PodRunning, runs("a", 5))
	generated := pod("run-x2x4z", "", corev1.PodRunning, runs("a", 5))
	generated.GenerateName = "run-"
	early := pod("web-5d9c7b8f6d-x2x4z", "ReplicaSet/web-5d9c7b8f6d", corev1.PodRunning, runs("a", 5))
	early.Labels = map[string]string{"pod-template-hash": "5d9c7b8f6d"}
	suspended := &batchv1.CronJob{ObjectMeta: objectMeta("shop", "nightly"), Spec: batchv1.CronJobSpec{Suspend: new(true), JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template("job:1")}}}}
	finished := &batchv1.Job{ObjectMeta: objectMeta("shop", "once"), Spec: batchv1.JobSpec{Template: template("job:1")}}
	finished.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	raw, err := json.Marshal(map[string]any{"spec": map[string]any{"template": template("old:1")}})
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name    string
		objects []kruntime.Object
		uses    []string
		wanted  []string
	}{
		{name: "nothing"},
		{name: "a container that runs", objects: []kruntime.Object{pod("p", "", corev1.PodRunning, runs("a", 5))}, uses: []string{"container a prod/shop/Pod/p"}},
		{name: "every kind of container, and a volume", objects: []kruntime.Object{whole},
			uses: []string{"container a prod/shop/Pod/p", "container i prod/shop/Pod/p", "container e prod/shop/Pod/p", "container v prod/shop/Pod/p"}},
		{name: "a volume whose digest nobody tells", objects: []kruntime.Object{unmounted},
			uses:   []string{"container a prod/shop/Pod/p", "container i prod/shop/Pod/p", "container e prod/shop/Pod/p"},
			wanted: []string{"vol:1 prod/shop/Pod/p"}},
		{name: "one that never starts is wanted, not used", objects: []kruntime.Object{pod("p", "", corev1.PodPending, never)}, wanted: []string{"spec:c0 prod/shop/Pod/p"}},
		{name: "one that waits to start again is used", objects: []kruntime.Object{pod("p", "", corev1.PodRunning, again)}, uses: []string{"container a prod/shop/Pod/p"}},
		{name: "one that runs by name only is wanted", objects: []kruntime.Object{pod("p", "", corev1.PodRunning, local)}, wanted: []string{"spec:c0 prod/shop/Pod/p"}},
		{name: "what ended is no longer in use", objects: []kruntime.Object{pod("p", "", corev1.PodSucceeded, ran("a", 1, 2))}},
		{name: "nor wanted when it failed", objects: []kruntime.Object{pod("p", "", corev1.PodFailed, never)}},
		{name: "a sidecar that ended in a pod that runs", objects: []kruntime.Object{pod("p", "", corev1.PodRunning, runs("a", 5), ran("b", 1, 2))},
			uses: []string{"container a prod/shop/Pod/p", "container b prod/shop/Pod/p"}},
		{name: "a Deployment", objects: []kruntime.Object{
			&appsv1.Deployment{ObjectMeta: objectMeta("shop", "web"), Spec: appsv1.DeploymentSpec{Template: template("web:2")}},
			&appsv1.ReplicaSet{ObjectMeta: objectMeta("shop", "web-5d9c7b8f6d", "Deployment/web"), Spec: appsv1.ReplicaSetSpec{Template: template("web:2")}},
			&appsv1.ReplicaSet{ObjectMeta: objectMeta("shop", "web-6c8b9d7f5c", "Deployment/web"), Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(0)), Template: template("web@" + dg("old"))}},
			pod("web-5d9c7b8f6d-x2x4z", "ReplicaSet/web-5d9c7b8f6d", corev1.PodRunning, runs("a", 5)),
			pod("web-5d9c7b8f6d-bbbbb", "ReplicaSet/web-5d9c7b8f6d", corev1.PodRunning, runs("a", 6))},
			uses:   []string{"container a prod/shop/Deployment/web", "workload old prod/shop/Deployment/web"},
			wanted: []string{"web:2 prod/shop/Deployment/web"}},
		{name: "a pod that is heard of before its ReplicaSet", objects: []kruntime.Object{early}, uses: []string{"container a prod/shop/Deployment/web"}},
		{name: "a CronJob, suspended", objects: []kruntime.Object{suspended}, wanted: []string{"job:1 prod/shop/CronJob/nightly"}},
		{name: "a CronJob's pods", objects: []kruntime.Object{
			suspended, &batchv1.Job{ObjectMeta: objectMeta("shop", "nightly-29384720", "CronJob/nightly"), Spec: batchv1.JobSpec{Template: template("job:1")}},
			pod("nightly-29384720-x2x4z", "Job/nightly-29384720", corev1.PodRunning, runs("a", 5))},
			uses: []string{"container a prod/shop/CronJob/nightly"}, wanted: []string{"job:1 prod/shop/CronJob/nightly"}},
		{name: "a Job that is finished wants nothing", objects: []kruntime.Object{finished}},
		{name: "Jobs that come and go have one name", objects: []kruntime.Object{
			pod("load-7xk2p-bbbbb", "Job/load-7xk2p", corev1.PodRunning, runs("a", 5)), pod("load-8xk2p-bbbbb", "Job/load-8xk2p", corev1.PodRunning, runs("a", 5))},
			uses: []string{"container a prod/shop/Job/load"}},
		{name: "owners of unknown kinds", objects: []kruntime.Object{pod("hello-7xk2p-123", "Workflow/hello-7xk2p", corev1.PodRunning, runs("a", 5))},
			uses: []string{"container a prod/shop/Workflow/hello"}},
		{name: "a static pod", objects: []kruntime.Object{static}, uses: []string{"container a prod/shop/Pod/etcd"}},
		{name: "a pod made from a prefix", objects: []kruntime.Object{generated}, uses: []string{"container a prod/shop/Pod/run"}},
		{name: "the other kinds of templates", objects: []kruntime.Object{
			&appsv1.StatefulSet{ObjectMeta: objectMeta("shop", "db"), Spec: appsv1.StatefulSetSpec{Template: template("db:1")}},
			&appsv1.ControllerRevision{ObjectMeta: objectMeta("shop", "db-5d9c7b8f6d", "StatefulSet/db"), Data: kruntime.RawExtension{Raw: raw}},
			&appsv1.ControllerRevision{ObjectMeta: objectMeta("shop", "other"), Data: kruntime.RawExtension{Raw: []byte(`"?"`)}},
			&appsv1.DaemonSet{ObjectMeta: objectMeta("shop", "log"), Spec: appsv1.DaemonSetSpec{Template: template("log:1")}},
			&corev1.PodTemplate{ObjectMeta: objectMeta("shop", "pt"), Template: template("pt:1")},
			&corev1.ReplicationController{ObjectMeta: objectMeta("shop", "rc"), Spec: corev1.ReplicationControllerSpec{Template: new(template("rc:1"))}},
			&corev1.ReplicationController{ObjectMeta: objectMeta("shop", "empty")}},
			wanted: []string{"db:1 prod/shop/StatefulSet/db", "old:1 prod/shop/StatefulSet/db", "log:1 prod/shop/DaemonSet/log", "pt:1 prod/shop/PodTemplate/pt", "rc:1 prod/shop/ReplicationController/rc"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newModel("prod")
			for _, o := range tt.objects {
				i, err := shrink(o)
				if err != nil {
					t.Fatal(err)
				}
				m.put(i, true)
			}
			s := m.snapshot()
			compareLines(t, "uses", lines(s.Uses), tt.uses)
			var wanted []string
			for _, w := range s.Wanted {
				wanted = append(wanted, w.Reference+" "+w.Subject)
			}
			slices.Sort(wanted)
			compareLines(t, "wanted", wanted, tt.wanted)
		})
	}
}

func TestPlatforms(t *testing.T) {
	m := newModel("prod")
	for i, arch := range []string{"arm64", "amd64", "arm64"} {
		n := &corev1.Node{ObjectMeta: objectMeta("", fmt.Sprint("n", i))}
		n.Status.NodeInfo.OperatingSystem, n.Status.NodeInfo.Architecture = "linux", arch
		i, err := shrink(n)
		if err != nil {
			t.Fatal(err)
		}
		m.put(i, true)
	}
	want := []usage.Platform{{OS: "linux", Architecture: "amd64", Count: 1}, {OS: "linux", Architecture: "arm64", Count: 2}}
	if got := m.snapshot().Platforms; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A hundred thousand pods fit into the memory that the agent is given: this
// measures what one takes.
func BenchmarkPods(b *testing.B) {
	b.ReportAllocs()
	const pods = 100_000
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m := newModel("prod")
		for n := range pods {
			name := fmt.Sprintf("web-%d-5d9c7b8f6d-%05d", n/50, n)
			p := pod(name, fmt.Sprintf("ReplicaSet/web-%d-5d9c7b8f6d", n/50), corev1.PodRunning, runs(fmt.Sprint(n/100), 5), runs("sidecar", 6))
			p.Spec.NodeName = fmt.Sprint("node-", n%5000)
			p.Labels = map[string]string{"pod-template-hash": "5d9c7b8f6d"}
			i, err := shrink(p)
			if err != nil {
				b.Fatal(err)
			}
			m.put(i, true)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/pods, "B/pod")
		began := time.Now()
		s := m.snapshot()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/snapshot")
		b.ReportMetric(float64(len(s.Uses)), "uses")
	}
}

// What changes is told once, with its time.
func TestChanges(t *testing.T) {
	m := newModel("prod")
	step := func(what string, want []string, do func() []usage.Use) {
		t.Helper()
		compareLines(t, what, lines(do()), want)
	}
	put := func(p *corev1.Pod, first bool) func() []usage.Use {
		return func() []usage.Use {
			i, err := shrink(p)
			if err != nil {
				t.Fatal(err)
			}
			return m.put(i, first)
		}
	}
	drop := func(p *corev1.Pod, at int) func() []usage.Use {
		return func() []usage.Use {
			i, err := shrink(p)
			if err != nil {
				t.Fatal(err)
			}
			return m.drop(i, after(at).Time)
		}
	}
	step("listed, running", nil, put(pod("p", "", corev1.PodRunning, runs("a", 5)), true))
	step("the same again", nil, put(pod("p", "", corev1.PodRunning, runs("a", 5)), false))
	step("restarted", []string{"container a prod/shop/Pod/p @9"}, put(pod("p", "", corev1.PodRunning, runs("a", 9)), false))
	step("ended", []string{"container a prod/shop/Pod/p @12"}, put(pod("p", "", corev1.PodSucceeded, ran("a", 9, 12)), false))
	step("deleted when it had ended", nil, drop(pod("p", "", corev1.PodSucceeded, ran("a", 9, 12)), 20))
	step("listed, ended", []string{"container a prod/shop/Pod/p @2"}, put(pod("p", "", corev1.PodSucceeded, ran("a", 1, 2)), true))
	step("starts", []string{"container b prod/shop/Pod/q @30"}, put(pod("q", "", corev1.PodRunning, runs("b", 30)), false))
	step("deleted while it runs", []string{"container b prod/shop/Pod/q @40"}, drop(pod("q", "", corev1.PodRunning, runs("b", 30)), 40))
	step("came and went between two looks", []string{"container c prod/shop/Pod/r @51"}, drop(pod("r", "", corev1.PodSucceeded, ran("c", 50, 51)), 60))
	if n := len(m.pods); n != 1 {
		t.Errorf("%d pods are kept, want 1", n)
	}
}
