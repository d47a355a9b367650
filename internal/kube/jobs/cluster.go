package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// cluster is the API server, as far as it is needed here.
type cluster struct {
	core, batch rest.Interface
	codec       runtime.ParameterCodec
	selector    string // of what is ours

	namespace string // to which Jobs belong; "" for none
	mu        sync.Mutex
	owner     *metav1.OwnerReference // that namespace, once it was asked for
}

func newCluster(cfg *rest.Config, name, id, namespace string) (*cluster, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, batchv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	codecs := serializer.NewCodecFactory(scheme)
	client := func(path string, v schema.GroupVersion) (rest.Interface, error) {
		c := rest.CopyConfig(cfg)
		c.ContentType = runtime.ContentTypeProtobuf
		c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		c.NegotiatedSerializer, c.GroupVersion, c.APIPath = codecs.WithoutConversion(), &v, path
		// Brakes of our own, and the API server's fairness, see to the rest.
		c.QPS = -1
		if c.UserAgent == "" {
			c.UserAgent = "cairn-jobs"
		}
		return rest.RESTClientFor(c)
	}
	core, err := client("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	batch, err := client("/apis", batchv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &cluster{core: core, batch: batch, codec: runtime.NewParameterCodec(scheme), selector: LabelCluster + "=" + name + "," + LabelServer + "=" + id, namespace: namespace}, nil
}

// callTimeout bounds one request that is no watch.
const callTimeout = 20 * time.Second

func (c *cluster) createJob(ctx context.Context, j *batchv1.Job) (*batchv1.Job, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	owner, err := c.owned(ctx)
	if err != nil {
		return nil, err
	}
	j.OwnerReferences = owner
	out := &batchv1.Job{}
	return out, c.batch.Post().Namespace(j.Namespace).Resource("jobs").Body(j).Do(ctx).Into(out)
}

// owned says to whom Jobs belong. A namespace may own what is in others: it is
// in none itself.
func (c *cluster) owned(ctx context.Context) ([]metav1.OwnerReference, error) {
	if c.namespace == "" {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner == nil {
		var n corev1.Namespace
		if err := c.core.Get().Resource("namespaces").Name(c.namespace).Do(ctx).Into(&n); err != nil {
			return nil, fmt.Errorf("look up the namespace of this server: %w", err)
		}
		c.owner = &metav1.OwnerReference{APIVersion: "v1", Kind: "Namespace", Name: n.Name, UID: n.UID}
	}
	return []metav1.OwnerReference{*c.owner}, nil
}

// createKey makes a Secret that may be there already.
func (c *cluster) createKey(ctx context.Context, s *corev1.Secret) error {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	owner, err := c.owned(ctx)
	if err != nil {
		return err
	}
	s.OwnerReferences = owner
	err = c.core.Post().Namespace(s.Namespace).Resource("secrets").Body(s).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// createClaim makes a claim that may be there already.
func (c *cluster) createClaim(ctx context.Context, p *corev1.PersistentVolumeClaim) error {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	owner, err := c.owned(ctx)
	if err != nil {
		return err
	}
	p.OwnerReferences = owner
	err = c.core.Post().Namespace(p.Namespace).Resource("persistentvolumeclaims").Body(p).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// listClaims are those of runs, in any namespace.
func (c *cluster) listClaims(ctx context.Context) ([]corev1.PersistentVolumeClaim, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	var l corev1.PersistentVolumeClaimList
	o := metav1.ListOptions{LabelSelector: c.selector}
	err := c.core.Get().Resource("persistentvolumeclaims").VersionedParams(&o, c.codec).Do(ctx).Into(&l)
	return l.Items, err
}

func (c *cluster) deleteClaim(ctx context.Context, namespace, name string, uid types.UID) error {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	return gone(c.core.Delete().Namespace(namespace).Resource("persistentvolumeclaims").Name(name).Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}).Do(ctx).Error())
}

// gone is nil where an object is not there any more, or another one of its name
// is, which stays.
func gone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// getJob is a Job that may have been made by a call whose answer got lost.
func (c *cluster) getJob(ctx context.Context, namespace, name string) (*batchv1.Job, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	out := &batchv1.Job{}
	return out, c.batch.Get().Namespace(namespace).Resource("jobs").Name(name).Do(ctx).Into(out)
}

func (c *cluster) resizeJob(ctx context.Context, namespace, name, version string, n int32) (*batchv1.Job, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	change := map[string]any{"spec": map[string]any{"completions": n, "parallelism": n}}
	if version != "" {
		change["metadata"] = map[string]any{"resourceVersion": version}
	}
	patch, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	out := &batchv1.Job{}
	return out, c.batch.Patch(types.MergePatchType).Namespace(namespace).Resource("jobs").Name(name).Body(patch).Do(ctx).Into(out)
}

// deleteJob removes a Job and, after it, its pods.
func (c *cluster) deleteJob(ctx context.Context, namespace, name string, uid types.UID) error {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	policy := metav1.DeletePropagationBackground
	return gone(c.batch.Delete().Namespace(namespace).Resource("jobs").Name(name).Body(&metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}}).Do(ctx).Error())
}

// restricted says whether a namespace enforces the restricted profile.
func (c *cluster) restricted(ctx context.Context, namespace string) (bool, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	var n corev1.Namespace
	if err := c.core.Get().Resource("namespaces").Name(namespace).Do(ctx).Into(&n); err != nil {
		return false, err
	}
	return n.Labels["pod-security.kubernetes.io/enforce"] == "restricted", nil
}

// event is what happened to an object, in the words of whoever saw it.
type event struct {
	reason, message string
	container       string // of the pod that it is about; "" for the whole of it
}

// maxEvents bounds what is read of the events of one object.
const maxEvents = 50

func (c *cluster) warning(ctx context.Context, namespace, kind, name string) (event, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	var l corev1.EventList
	o := metav1.ListOptions{FieldSelector: fields.Set{"involvedObject.name": name, "involvedObject.kind": kind, "type": corev1.EventTypeWarning}.String(), Limit: maxEvents}
	if err := c.core.Get().Namespace(namespace).Resource("events").VersionedParams(&o, c.codec).Do(ctx).Into(&l); err != nil {
		return event{}, err
	}
	var newest *corev1.Event
	for i := range l.Items {
		e := &l.Items[i]
		if kind == "Pod" && !hinders(e.Reason, e.Message) {
			continue
		}
		if newest == nil || at(newest).Before(at(e)) {
			newest = e
		}
	}
	if newest == nil {
		return event{}, nil
	}
	return event{newest.Reason, newest.Message, containerOf(newest.InvolvedObject.FieldPath)}, nil
}

// at is when an event last happened: the older and the newer kind of events say
// it at different places.
func at(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

// sink takes what is watched of one kind.
type sink interface {
	put(obj any)
	drop(obj any)
}

// watch lists and watches what is ours of a kind, until ctx ends.
func (c *cluster) watch(ctx context.Context, client rest.Interface, resource string, list func() runtime.Object, kind runtime.Object, to sink) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = c.selector
			l := list()
			return l, client.Get().Resource(resource).VersionedParams(&o, c.codec).Do(ctx).Into(l)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector, o.Watch = c.selector, true
			req := client.Get().Resource(resource).VersionedParams(&o, c.codec)
			if o.TimeoutSeconds != nil {
				req = req.Timeout(time.Duration(*o.TimeoutSeconds) * time.Second)
			}
			return req.Watch(ctx)
		},
	}
	cache.NewReflectorWithOptions(lw, kind, &store{to: to, known: map[types.UID]any{}}, cache.ReflectorOptions{Name: "cairn-jobs " + resource}).RunWithContext(ctx)
}

// store turns what a reflector says into what is there and what is gone.
type store struct {
	to    sink
	mu    sync.Mutex
	known map[types.UID]any
}

// Add implements cache.ReflectorStore.
func (s *store) Add(obj any) error {
	m, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("a reflector brought a %T", obj)
	}
	s.mu.Lock()
	s.known[m.GetUID()] = obj
	s.mu.Unlock()
	s.to.put(obj)
	return nil
}

// Update implements cache.ReflectorStore.
func (s *store) Update(obj any) error { return s.Add(obj) }

// Delete implements cache.ReflectorStore.
func (s *store) Delete(obj any) error {
	m, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("a reflector brought a %T", obj)
	}
	s.mu.Lock()
	delete(s.known, m.GetUID())
	s.mu.Unlock()
	s.to.drop(obj)
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *store) Replace(list []any, _ string) error {
	s.mu.Lock()
	gone := s.known
	s.known = map[types.UID]any{}
	for _, obj := range list {
		if m, ok := obj.(metav1.Object); ok {
			s.known[m.GetUID()] = obj
			delete(gone, m.GetUID())
		}
	}
	s.mu.Unlock()
	for _, obj := range gone {
		s.to.drop(obj)
	}
	for _, obj := range list {
		s.to.put(obj)
	}
	if l, ok := s.to.(interface{ listed() }); ok {
		l.listed()
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *store) Resync() error { return nil }

// maxSecret bounds what is read of a Secret.
const maxSecret = 1 << 20

// PullSecrets are the names of those that pods of a namespace get from their
// service account.
func (c *Controller) PullSecrets(ctx context.Context, namespace string) ([]string, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	var a corev1.ServiceAccount
	if err := c.real.core.Get().Namespace(namespace).Resource("serviceaccounts").Name("default").Do(ctx).Into(&a); apierrors.IsForbidden(err) {
		return nil, nil // it was installed without this right, on purpose
	} else if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	var out []string
	for _, s := range a.ImagePullSecrets {
		out = append(out, s.Name)
	}
	return out, nil
}

// PullSecret is the content of one: a .dockerconfigjson or a .dockercfg.
func (c *Controller) PullSecret(ctx context.Context, namespace, name string) ([]byte, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	var s corev1.Secret
	if err := c.real.core.Get().Namespace(namespace).Resource("secrets").Name(name).Do(ctx).Into(&s); err != nil {
		return nil, err
	}
	for _, k := range []string{corev1.DockerConfigJsonKey, corev1.DockerConfigKey} {
		if b, ok := s.Data[k]; ok && len(b) <= maxSecret {
			return b, nil
		}
	}
	return nil, fmt.Errorf("secret %s has no %s", name, corev1.DockerConfigJsonKey)
}
