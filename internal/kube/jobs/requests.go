package jobs

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// requester makes the pod of tasks that are requests to the API server: the
// worker in its own image, with the token of the account that the tasks name
// and nothing else of theirs. Whatever profile a namespace enforces, it passes.
func requester(p *Plan, s corev1.PodSpec) corev1.PodSpec {
	s.AutomountServiceAccountToken = ptr(true)
	s.InitContainers, s.Volumes = nil, nil
	s.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	s.Containers = []corev1.Container{{
		Name: Main, Image: p.Worker, Env: environment(p), TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		Args: []string{"-name=$(CAIRN_NAME)", "-pool=" + p.Demand.Class, "-resources", "-slots=" + strconv.Itoa(p.Demand.Shape.Slots())},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}, // what it reads at once is bounded
		},
		SecurityContext: &corev1.SecurityContext{RunAsUser: ptr(int64(65532)), RunAsGroup: ptr(int64(65532)), RunAsNonRoot: ptr(true), ReadOnlyRootFilesystem: ptr(true), AllowPrivilegeEscalation: ptr(false),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
	}}
	return s
}
