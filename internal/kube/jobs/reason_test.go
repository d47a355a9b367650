package jobs

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What keeps a pod from starting is told with what helps. The words are those
// of Kubernetes 1.30 to 1.37.
func TestReasons(t *testing.T) {
	waits := func(reason, message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Image: "app:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
		}
	}
	unschedulable := func(message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message}}
		}
	}
	for name, c := range map[string]struct {
		pod  func(*corev1.Pod)
		own  bool
		want string // "" for nothing
		cure string // a part of it
	}{
		"on its way":         {func(p *corev1.Pod) { p.Spec.NodeName = "n" }, false, "", ""},
		"resources":          {unschedulable("0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available: 3 No preemption victims found."), false, "no node takes the pod: 0/3 nodes are available: 3 Insufficient memory; ", "add nodes"},
		"a taint":            {unschedulable("0/1 nodes are available: 1 node(s) had untolerated taint {batch: true}."), false, "no node takes the pod: 0/1", "tolerations"},
		"a selector":         {unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."), false, "no node takes", "nodeSelector"},
		"cordoned":           {unschedulable("0/1 nodes are available: 1 node(s) were unschedulable."), false, "no node", "uncordon"},
		"no claim":           {unschedulable(`persistentvolumeclaim "data" not found`), false, "no node", "make the claim"},
		"a claim unbound":    {unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."), false, "no node", "provisioner"},
		"a volume elsewhere": {unschedulable("0/1 nodes are available: 1 node(s) had volume node affinity conflict."), false, "no node", "another place"},
		"one pod at a time":  {unschedulable("0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."), false, "no node", "ReadWriteMany"},
		"no device":          {unschedulable("0/1 nodes are available: 1 cannot allocate all claims."), false, "no node", "resourceslices"},
		"no ResourceClaim":   {unschedulable(`resourceclaim "gpu" not found`), false, "no node", "make the ResourceClaim"},
		"gates": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated}}
		}, false, "no node is looked for yet", "scheduling gates"},
		"no such image":  {waits("ErrImagePull", `failed to resolve reference "app:1": app:1: not found`), true, "container main cannot start: ErrImagePull: ", "push it"},
		"no pull secret": {waits("ImagePullBackOff", `Back-off pulling image "app:1": ErrImagePull: 401 Unauthorized`), true, "container main cannot start: ImagePullBackOff", "pull secret"},
		"no registry":    {waits("ErrImagePull", "dial tcp: lookup reg.example: no such host"), true, "container main", "does not reach the registry"},
		"never pulled":   {waits("ErrImageNeverPull", "Container image is not present with pull policy of Never"), true, "container main", "imagePullPolicy is Never"},
		"no Secret":      {waits("CreateContainerConfigError", `secret "db" not found`), true, "container main", "mark it as optional"},
		"no key in it":   {waits("CreateContainerConfigError", "couldn't find key p in Secret data/db"), true, "container main", "mark it as optional"},
		"root":           {waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), true, "container main", "runAsUser"},
		"without words":  {waits("ErrImagePull", ""), true, "container main cannot start: ErrImagePull: image app:1", ""},
		"one that goes again": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "side", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}}}}
		}, true, "container side does not stay up, it ended with exit code 3 (Error)", "kubectl logs -n data w -c side"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "w", Namespace: "data"}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
			c.pod(p)
			r := reasonOf(p)
			if r.own != c.own || !strings.HasPrefix(r.why, c.want) || c.want == "" && r.why != "" || !strings.Contains(r.why, c.cure) {
				t.Errorf("it is %+v", r)
			}
			if strings.Contains(r.why, "preemption") {
				t.Errorf("it says what others would have to do: %s", r.why)
			}
		})
	}
}

// What others say of pods: who makes them, and the kubelet.
func TestCures(t *testing.T) {
	for words, cure := range map[string]string{
		`pods "a" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0`:                                                      "raise the ResourceQuota",
		`pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`:                                                 "Pod Security profile",
		`admission webhook "policy.example" denied the request: no latest tags`:                                                                              "policy is the cluster's",
		`Internal error occurred: failed calling webhook "policy.example": failed to call webhook: Post "https://x": connection refused`:                     "is its Service up",
		`pods "a" is forbidden: error looking up service account data/reader: serviceaccount "reader" not found`:                                             "make the service account",
		`pods "a" is forbidden: no PriorityClass with name high was found`:                                                                                   "make the PriorityClass",
		`pods "a" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]`:                                                                      "LimitRange",
		`FailedResourceClaimCreation: PodResourceClaim gpu: resource claim template "gpu": resourceclaimtemplate.resource.k8s.io "gpu" not found`:            "make the ResourceClaimTemplate",
		`FailedMount: MountVolume.SetUp failed for volume "w" : configmap "words" not found`:                                                                 "mark it as optional",
		`FailedMount: Unable to attach or mount volumes: unmounted volumes=[data]: timed out waiting for the condition`:                                      "volumeattachments",
		`FailedMount: MountVolume.MountDevice failed for volume "d" : driver name ebs.csi.aws.com not found in the list of registered CSI drivers`:           "install the driver",
		`FailedAttachVolume: Multi-Attach error for volume "d" Volume is already used by pod(s) other`:                                                       "one pod have it at a time",
		`FailedCreatePodSandBox: Failed to create pod sandbox: plugin type="bridge" failed (add): failed to allocate for range 0: no IP addresses available`: "network or runtime",
		`FailedMount: MountVolume.SetUp failed for volume "h" : hostPath type check failed: /x is not a directory`:                                           "DirectoryOrCreate",
		`pods "a" is forbidden: User "system:serviceaccount:cairn:cairn" cannot create resource "pods" in API group "" in the namespace "data"`:              "",
		`something that was never heard of`: "",
	} {
		got := cured(words)
		if rest := strings.TrimPrefix(got, words); (rest == "") != (cure == "") || !strings.Contains(rest, cure) {
			t.Errorf("%s\nis cured by %q, want %q", words, rest, cure)
		}
	}
	for message, own := range map[string]bool{`secret "a" not found`: true, `configmap "a" not found`: true, "configmap references non-existent config key: k": true, "timed out": false,
		"driver name x not found in the list of registered CSI drivers": false} {
		if r := fromEvent(event{reason: "FailedMount", message: message}); r.own != own {
			t.Errorf("%s: %+v", message, r)
		}
	}
	for path, want := range map[string]string{
		"spec.containers{main}":      "container main cannot start: Failed to pull image",
		"spec.initContainers{cairn}": "container cairn cannot start: Failed to pull image",
		"":                           "Failed: Failed to pull image",
		"spec.containers{main":       "Failed: Failed to pull image",
	} {
		if r := fromEvent(event{"Failed", `Failed to pull image "a:1": unauthorized`, containerOf(path)}); !strings.HasPrefix(r.why, want) || !strings.Contains(r.why, "pull secret") {
			t.Errorf("%q: %s", path, r.why)
		}
	}
}

// A pod whose image is long on its way is not ended for a warning that keeps no
// pod from starting.
func TestHinders(t *testing.T) {
	for words, want := range map[string]bool{"FailedMount: x": true, "FailedScheduling: x": true, "FailedCreatePodSandBox: x": true,
		"Failed: Failed to pull image \"a\": not found": true, "Failed: Error: secret \"a\" not found": true, "Failed: Error: ImagePullBackOff": false, "Failed: Error: ErrImagePull": false,
		"MissingClusterDNS: x": false, "DNSConfigForming: x": false, "PolicyViolation: x": false, ": x": false} {
		reason, message, _ := strings.Cut(words, ": ")
		if got := hinders(reason, message); got != want {
			t.Errorf("%q: %v, want %v", words, got, want)
		}
	}
}

// A pod that only takes its time is no trouble, but who waits for it hears of it.
func TestIdle(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	p := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}
	if got := idleOf(p); !strings.Contains(got, "does the scheduler default-scheduler run?") || !silent(p) {
		t.Errorf("without a node: %q", got)
	}
	p.Spec.NodeName = "n"
	p.Spec.InitContainers = []corev1.Container{{Name: "side", RestartPolicy: &always}, {Name: "fetch"}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: copierName, State: running}, {Name: "side", State: running}}
	if got := idleOf(p); got != "" {
		t.Errorf("it goes on, and %q", got)
	}
	p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, corev1.ContainerStatus{Name: "fetch", State: running})
	if got := idleOf(p); got != "container fetch runs first, and has not ended" || silent(p) || reasonOf(p).why != "" {
		t.Errorf("a container before the others: %q", got)
	}
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	stays := &pod{node: "n", leaves: now}
	if got := staysOf(stays, now.Add(overdue/2)); got != "" {
		t.Errorf("one that may still go: %q", got)
	}
	if got := staysOf(stays, now.Add(overdue)); !strings.Contains(got, "does its node n answer") {
		t.Errorf("one that does not go: %q", got)
	}
	over := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, InitContainerStatuses: []corev1.ContainerStatus{{Name: "fetch", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 7, Reason: "Error", Message: "no file"}}}}}}
	if got := endOf(over); got != "container fetch ended: exit code 7: no file" {
		t.Errorf("a container before the others that failed: %q", got)
	}
}
