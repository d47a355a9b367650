package kube

import (
	"encoding/json"
	"fmt"
	"time"
	"unique"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/image"
)

// text is a string that many items share.
type text = unique.Handle[string]

func intern(s string) text { return unique.Make(s) }

// An item is what is kept of an object, whatever its kind. It looks like an
// object to reflectors.
type item struct {
	kind      text
	namespace text
	name      string
	version   string // only while it is on its way
	end       bool   // the bookmark that ends a streamed list

	owner  owner
	stem   string // what a controller or script made the name from; "" if not known
	hash   string // the end of the ReplicaSet's name, on its pods
	node   text
	done   bool // a pod or job that will not run again
	used   []used
	wanted []text // references that are not seen to run
	os     text   // of a node
	arch   text
}

// owner is the controller of an object.
type owner struct{ kind, name text }

func (o owner) none() bool { return o == owner{} }

// used is an image that a pod runs or ran.
type used struct {
	digest text
	// id tells one run of a container from the next: when it started.
	id int64
	at int64 // when it started or, if over, ended; milliseconds of the Unix epoch
	// over: it ended. Its pod may start it again.
	over bool
}

// GetObjectKind implements runtime.Object.
func (i *item) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. Items are never changed.
func (i *item) DeepCopyObject() runtime.Object { return i }

// GetObjectMeta is how the library finds name and version.
func (i *item) GetObjectMeta() metav1.Object {
	m := &metav1.ObjectMeta{Name: i.name, ResourceVersion: i.version}
	if i.namespace != (text{}) {
		m.Namespace = i.namespace.Value()
	}
	if i.end {
		m.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	return m
}

// itemList is a list as reflectors take it.
type itemList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject implements runtime.Object.
func (l *itemList) DeepCopyObject() runtime.Object { return l }

// shrink keeps of an object what matters.
func shrink(obj runtime.Object) (*item, error) {
	var i *item
	switch o := obj.(type) {
	case *corev1.Pod:
		i = head(o, "Pod")
		i.pod(o)
	case *corev1.Node:
		i = head(o, "Node")
		i.os, i.arch = intern(o.Status.NodeInfo.OperatingSystem), intern(o.Status.NodeInfo.Architecture)
	case *appsv1.Deployment:
		i = head(o, "Deployment")
		i.template(&o.Spec.Template.Spec)
	case *appsv1.ReplicaSet:
		i = head(o, "ReplicaSet")
		i.template(&o.Spec.Template.Spec)
	case *appsv1.StatefulSet:
		i = head(o, "StatefulSet")
		i.template(&o.Spec.Template.Spec)
	case *appsv1.DaemonSet:
		i = head(o, "DaemonSet")
		i.template(&o.Spec.Template.Spec)
	case *appsv1.ControllerRevision:
		i = head(o, "ControllerRevision")
		// The data belong to whoever owns the revision. Those of StatefulSets
		// and DaemonSets hold a template; others are none of ours.
		var d struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		if json.Unmarshal(o.Data.Raw, &d) == nil {
			i.template(&d.Spec.Template.Spec)
		}
	case *batchv1.CronJob:
		i = head(o, "CronJob")
		i.template(&o.Spec.JobTemplate.Spec.Template.Spec)
	case *batchv1.Job:
		i = head(o, "Job")
		for _, c := range o.Status.Conditions {
			if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
				i.done = true
			}
		}
		if !i.done {
			i.template(&o.Spec.Template.Spec)
		}
	case *corev1.ReplicationController:
		i = head(o, "ReplicationController")
		if o.Spec.Template != nil {
			i.template(&o.Spec.Template.Spec)
		}
	case *corev1.PodTemplate:
		i = head(o, "PodTemplate")
		i.template(&o.Template.Spec)
	default:
		return nil, fmt.Errorf("the API server sent a %T", obj)
	}
	return i, nil
}

func head(o metav1.Object, kind string) *item {
	i := &item{kind: intern(kind), namespace: intern(o.GetNamespace()), name: o.GetName(), version: o.GetResourceVersion()}
	i.end = o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
	if g := o.GetGenerateName(); g != "" {
		i.stem = agent.Stem(trim(g))
	}
	if c := metav1.GetControllerOfNoCopy(o); c != nil {
		i.owner = owner{intern(c.Kind), intern(c.Name)}
	} else if refs := o.GetOwnerReferences(); len(refs) > 0 {
		i.owner = owner{intern(refs[0].Kind), intern(refs[0].Name)}
	}
	return i
}

func trim(s string) string {
	for len(s) > 1 && (s[len(s)-1] == '-' || s[len(s)-1] == '.') {
		s = s[:len(s)-1]
	}
	return s
}

// template keeps every image a pod of this template would need.
func (i *item) template(s *corev1.PodSpec) {
	eachImage(s, func(_, reference string) { i.want(reference) })
}

func (i *item) want(reference string) {
	if reference != "" {
		i.wanted = append(i.wanted, intern(reference))
	}
}

// eachImage calls f with the name of the container, or "" for a volume.
func eachImage(s *corev1.PodSpec, f func(container, reference string)) {
	for _, c := range s.InitContainers {
		f(c.Name, c.Image)
	}
	for _, c := range s.Containers {
		f(c.Name, c.Image)
	}
	for _, c := range s.EphemeralContainers {
		f(c.Name, c.Image)
	}
	for _, v := range s.Volumes {
		if v.Image != nil {
			f("", v.Image.Reference)
		}
	}
}

// pod keeps what a pod runs, and what it wants and does not run yet.
func (i *item) pod(p *corev1.Pod) {
	i.node = intern(p.Spec.NodeName)
	i.hash = p.Labels["pod-template-hash"]
	i.done = p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	started := map[string]bool{}
	mounted := false
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for n := range list {
			s := &list[n]
			u, ran := state(s)
			if !ran {
				continue
			}
			d, ok := agent.ParseImageID(s.ImageID)
			if !ok {
				continue // all there is is a name: it is wanted by that
			}
			started[s.Name] = true
			u.digest = intern(string(d))
			i.used = append(i.used, u)
			for _, m := range s.VolumeMounts {
				if m.VolumeStatus == nil || m.VolumeStatus.Image == nil {
					continue
				}
				if d, ok := agent.ParseImageID(m.VolumeStatus.Image.ImageRef); ok {
					mounted = true
					v := u
					v.digest = intern(string(d))
					i.used = append(i.used, v)
				}
			}
		}
	}
	if i.done {
		return
	}
	eachImage(&p.Spec, func(container, reference string) {
		if container == "" && !mounted || container != "" && !started[container] {
			i.want(reference)
		}
	})
}

// state is since or until when a container ran; false if it never did.
func state(s *corev1.ContainerStatus) (used, bool) {
	switch {
	case s.State.Running != nil:
		t := ms(s.State.Running.StartedAt.Time)
		return used{id: t, at: t}, true
	case s.State.Terminated != nil:
		return ended(s.State.Terminated), s.ImageID != ""
	case s.LastTerminationState.Terminated != nil: // about to start again
		return ended(s.LastTerminationState.Terminated), s.ImageID != ""
	}
	return used{}, false
}

func ended(t *corev1.ContainerStateTerminated) used {
	return used{id: ms(t.StartedAt.Time), at: ms(t.FinishedAt.Time), over: true}
}

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func digestOf(t text) image.Digest { return image.Digest(t.Value()) }
