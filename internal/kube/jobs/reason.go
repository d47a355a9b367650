package jobs

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// reason is why a pod does not start.
type reason struct {
	why string // "" when nothing is known to be wrong
	own bool   // it lies with the pod, and room or time do not cure it
}

// reasonOf is what the status of a pod says.
func reasonOf(p *corev1.Pod) (r reason) {
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		if c.Type != corev1.PodScheduled || c.Status != corev1.ConditionFalse {
			continue
		}
		switch c.Reason {
		case corev1.PodReasonUnschedulable:
			// What would become of it if others went repeats what is said before.
			message, _, _ := strings.Cut(c.Message, " preemption: ")
			r = reason{"no node takes the pod: " + cured(message), false}
		case corev1.PodReasonSchedulingGated:
			r = reason{"no node is looked for yet: the pod has scheduling gates: whoever set them has to remove them", false}
		}
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range list {
			s := &list[i]
			w := s.State.Waiting
			switch {
			case w == nil:
			case bad(w.Reason):
				r = reason{cured(fmt.Sprintf("container %s cannot start: %s: %s", s.Name, w.Reason, cmp.Or(w.Message, "image "+s.Image))), true}
			case w.Reason == "CrashLoopBackOff" && p.Status.Phase == corev1.PodPending:
				// One that restarts keeps those behind it from their start.
				r = reason{fmt.Sprintf("container %s does not stay up%s: see kubectl logs -n %s %s -c %s", s.Name, lastEnd(s), p.Namespace, p.Name, s.Name), true}
			}
		}
	}
	return r
}

// lastEnd is how a container ended that was begun again.
func lastEnd(s *corev1.ContainerStatus) string {
	if t := s.LastTerminationState.Terminated; t != nil {
		return fmt.Sprintf(", it ended with exit code %d (%s)", t.ExitCode, t.Reason)
	}
	return ""
}

// bad are the reasons of a container that waits for what will not come.
func bad(reason string) bool {
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable",
		"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "SignatureValidationFailed":
		return true
	}
	return false
}

// silent reports whether a pod waits, and its status does not say for what: then
// its events may. Programs that run before the others are waited for in order.
func silent(p *corev1.Pod) bool {
	if p.Status.Phase != corev1.PodPending || p.DeletionTimestamp != nil {
		return false
	}
	for i := range p.Status.InitContainerStatuses {
		if p.Status.InitContainerStatuses[i].State.Running != nil {
			return false
		}
	}
	return true
}

// copierName is the container that brings the worker.
const copierName = "cairn"

// idleOf is what a pod waits for though nothing is wrong with it, as far as is
// known; "" when it is on its way.
func idleOf(p *corev1.Pod) string {
	if p.Status.Phase != corev1.PodPending || p.DeletionTimestamp != nil {
		return ""
	}
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; s.State.Running != nil && s.Name != copierName && !restarts(p, s.Name) {
			return fmt.Sprintf("container %s runs first, and has not ended", s.Name)
		}
	}
	if p.Spec.NodeName == "" {
		return fmt.Sprintf("no node was looked for yet: does the scheduler %s run?", cmp.Or(p.Spec.SchedulerName, corev1.DefaultSchedulerName))
	}
	return ""
}

// overdue is how long after its time a pod that is to be deleted may be there.
const overdue = 30 * time.Second

// staysOf is said of a pod that does not go. Nothing is wrong with the others
// that are made in its place.
func staysOf(p *pod, now time.Time) string {
	if p.leaves.IsZero() || now.Sub(p.leaves) < overdue {
		return ""
	}
	return fmt.Sprintf("it should have gone at %s: does its node %s answer, or has it finalizers? kubectl describe pod tells, kubectl delete --force gives it up", p.leaves.UTC().Format(time.RFC3339), cmp.Or(p.node, "(none)"))
}

// restarts reports whether an init container is one that goes on beside the
// others.
func restarts(p *corev1.Pod, name string) bool {
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.Name == name {
			return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}
	}
	return false
}

// hinders reports whether an event of this reason tells what keeps a pod from
// starting. Clusters warn of much else, such as too many name servers or what a
// policy would have wanted, beside which pods start once their images are there.
// Nor does one tell it that names the state of a container and not its cause,
// which is said beside each failure to pull.
func hinders(reason, message string) bool {
	if state, ok := strings.CutPrefix(message, "Error: "); ok && bad(state) {
		return false
	}
	switch reason {
	case "FailedScheduling", "FailedResourceClaimCreation", "FailedPrepareDynamicResources",
		"FailedMount", "FailedMountOnFilesystemMismatch", "FailedAttachVolume", "FailedMapVolume",
		"FailedCreatePodSandBox", "FailedPodSandBoxStatus", "NetworkNotReady",
		"Failed", "FailedCreatePodContainer", "InspectFailed", "ErrImageNeverPull":
		return true
	}
	return false
}

// fromEvent is what an event of a pod says that its status does not.
func fromEvent(e event) reason {
	words := e.reason + ": " + e.message
	if e.container != "" {
		words = fmt.Sprintf("container %s cannot start: %s", e.container, strings.TrimPrefix(e.message, "Error: "))
	}
	missing := strings.Contains(e.message, "not found") && (strings.Contains(e.message, `secret "`) || strings.Contains(e.message, `configmap "`))
	return reason{cured(words), missing || strings.Contains(e.message, "references non-existent")}
}

// containerOf is the container that an event of a pod is about, by the path that
// the kubelet gives it: spec.containers{main}, spec.initContainers{cairn}.
func containerOf(path string) string {
	_, name, _ := strings.Cut(path, "{")
	name, whole := strings.CutSuffix(name, "}")
	if !whole {
		return ""
	}
	return name
}

// cured is what a cluster says, and what can be done about it where it does not
// say so itself.
func cured(words string) string {
	words = strings.TrimSpace(words)
	low := strings.ToLower(words)
	for _, c := range cures {
		for _, mark := range c.marks {
			if strings.Contains(low, mark) {
				return strings.TrimRight(words, ".") + "; " + c.cure
			}
		}
	}
	return words
}

// cures are by what clusters say, in lower case: the words are those of the
// scheduler, the kubelet, the API server and its admission. The first that fits
// counts, so that those which say more stand first.
var cures = []struct {
	cure  string
	marks []string
}{
	{"raise the ResourceQuota of the namespace, ask for less, or wait until others have ended", []string{"exceeded quota", "failed quota"}},
	{"set resources as the LimitRange of the namespace wants them", []string{"usage per container", "usage per pod", "limit to request ratio"}},
	{"the namespace enforces a Pod Security profile: correct the securityContext of the template, or run it in a namespace that allows it", []string{"violates podsecurity"}},
	{"the webhook does not answer: is its Service up?", []string{"failed calling webhook"}},
	{"that policy is the cluster's: change what it names, or ask who looks after it", []string{"admission webhook", "validatingadmissionpolicy"}},
	{"make the service account in this namespace, or name another one", []string{"error looking up service account"}},
	{"make the PriorityClass, or name another one", []string{"no priorityclass"}},

	{"make the ResourceClaimTemplate in this namespace, or name another one", []string{"failedresourceclaimcreation", "resource claim template"}},
	{"make the ResourceClaim in this namespace, or name another one", []string{"resourceclaim \"", "could not find v1.resourceclaim", "missing resourceclaim"}},
	{"no node has such a device free: kubectl get resourceslices lists what there is, kubectl describe resourceclaim who has it", []string{"cannot allocate all claims", "resourceclaim", "resource claim"}},
	{"make the claim in this namespace, or name another one", []string{"persistentvolumeclaim \""}},
	{"the claim has no volume: kubectl describe pvc says why; is there such a storage class, and does its provisioner run?", []string{"unbound immediate persistentvolumeclaims", "didn't find available persistent volumes"}},
	{"the claim's volume is in another place than the nodes that fit otherwise", []string{"volume node affinity conflict"}},
	{"the claim's access mode lets one pod have it at a time: wait for the other, or use ReadWriteMany", []string{"readwriteoncepod", "multi-attach error", "already exclusively attached"}},
	{"ask for less, or add nodes", []string{"insufficient ", "too many pods", "exceed max volume count"}},
	{"give the template tolerations, or nodes without that taint", []string{"untolerated taint"}},
	{"nodeSelector and affinity have to fit a node: kubectl get nodes --show-labels", []string{"didn't match pod's node affinity", "didn't match node selector", "didn't satisfy existing pods anti-affinity", "didn't match pod affinity", "didn't match pod anti-affinity", "didn't match pod topology spread"}},
	{"another pod has the hostPort", []string{"didn't have free ports"}},
	{"kubectl uncordon lets pods in again", []string{"node(s) were unschedulable"}},

	{"make it in this namespace, or mark it as optional", []string{`secret "`, `configmap "`, "couldn't find key", "references non-existent"}},
	{"name a user that is not root: securityContext.runAsUser", []string{"runasnonroot"}},
	{"name a pull secret for this registry in imagePullSecrets of the workflow or of the namespace's default account; or correct the name", []string{"unauthorized", "authorization failed", "access denied", "is denied", "denied:", "403 forbidden", "no basic auth", "authentication required"}},
	{"correct the image's name and tag, or push it", []string{"manifest unknown", "name unknown", "repository does not exist", "invalidimagename", ": not found", "no match for platform"}},
	{"imagePullPolicy is Never, and the node does not have the image", []string{"errimageneverpull"}},
	{"the node does not reach the registry: kubectl describe pod says which address was tried", []string{"no such host", "connection refused", "i/o timeout", "x509:", "server gave http response to https client", "tls handshake", "toomanyrequests", "too many requests"}},

	{"install the driver of this volume on the node", []string{"not found in the list of registered csi drivers", "no volume plugin matched"}},
	{"the path has to be there on the node, or its type has to be DirectoryOrCreate", []string{"hostpath type check failed"}},
	{"the volume does not come: kubectl describe pod says which, kubectl get volumeattachments where it is", []string{"failedattachvolume", "failedmount"}},
	{"the node's network or runtime does not make the pod: kubectl describe node", []string{"failedcreatepodsandbox", "networkplugin"}},
}
