package controller

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kubewatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/kube/crd"
)

// watch is a kind that is looked at, in all namespaces or in some.
type watch struct {
	stores   []cache.Store
	synced   []cache.InformerSynced
	stop     context.CancelFunc
	all      bool         // not only those with the label
	separate bool         // its status is written apart from the rest of the object
	failing  map[int]bool // of its stores, those whose list was refused; under the controller's lock
}

// watchDefinitions follows which kinds the cluster has: Argo may come and go.
// Only the names and labels of definitions are read; Argo's are megabytes.
func (c *Controller) watchDefinitions(ctx context.Context, wg *sync.WaitGroup) {
	defs := c.defs.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return defs.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (kubewatch.Interface, error) {
				return defs.Watch(ctx, o)
			},
		},
		ObjectType: &metav1.PartialObjectMetadata{},
		Transform: func(o any) (any, error) {
			if m, err := meta.Accessor(o); err == nil {
				m.SetManagedFields(nil)
				m.SetAnnotations(nil)
			}
			return o, nil
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { c.defined(ctx, wg, o, true) },
			UpdateFunc: func(_, o any) { c.defined(ctx, wg, o, true) },
			DeleteFunc: func(o any) { c.defined(ctx, wg, o, false) },
		},
	})
	c.mu.Lock()
	c.watches[nil] = &watch{stores: []cache.Store{store}, synced: []cache.InformerSynced{informer.HasSynced}, stop: func() {}}
	c.mu.Unlock()
	wg.Go(func() { informer.RunWithContext(ctx) })
}

// defined notes that a definition is there, or is not any more.
func (c *Controller) defined(ctx context.Context, wg *sync.WaitGroup, o any, there bool) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	k := c.kindOf(m.GetName())
	if k == nil {
		return
	}
	all := !k.argo() || k.role == roleTemplate || c.cfg.Argo == Auto && m.GetLabels()[crd.Minimal] != ""
	c.mu.Lock()
	old := c.watches[k]
	if old != nil && there && old.all == all {
		c.mu.Unlock()
		return
	}
	if old != nil {
		old.stop()
		delete(c.watches, k)
	}
	var now *watch
	if there {
		now = c.watch(ctx, wg, k, all)
		c.watches[k] = now
	}
	c.mu.Unlock()
	if old != nil {
		wg.Go(func() { c.parted(ctx, k, old, now) })
	}
}

// parted notes the deletion of what was looked at and is not any more: with its
// definition all of a kind goes, and when Argo comes, what has no label is
// Argo's. The old watch was ended before it could say so.
func (c *Controller) parted(ctx context.Context, k *kind, old, now *watch) {
	there := map[types.UID]bool{}
	if now != nil {
		if !cache.WaitForCacheSync(ctx.Done(), now.synced...) {
			return // the next process finds them, see clean
		}
		for u := range now.objects() {
			there[u.GetUID()] = true
		}
	}
	for u := range old.objects() {
		if !there[u.GetUID()] {
			c.deleted(k, u)
		}
	}
}

// objects are those that were seen.
func (w *watch) objects() iter.Seq[*unstructured.Unstructured] {
	return func(yield func(*unstructured.Unstructured) bool) {
		for _, s := range w.stores {
			for _, o := range s.List() {
				if u, ok := o.(*unstructured.Unstructured); ok && !yield(u) {
					return
				}
			}
		}
	}
}

// kindOf is the kind that a definition makes; nil when it is not looked at.
func (c *Controller) kindOf(definition string) *kind {
	i := slices.IndexFunc(c.kinds, func(k *kind) bool { return k.definition() == definition })
	if i < 0 || c.kinds[i].argo() && c.cfg.Argo == Off {
		return nil
	}
	return c.kinds[i]
}

// watch begins to look at a kind.
func (c *Controller) watch(ctx context.Context, wg *sync.WaitGroup, k *kind, all bool) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{stop: cancel, all: all, separate: !k.argo(), failing: map[int]bool{}}
	namespaces := c.cfg.Namespaces
	if len(namespaces) == 0 || k.cluster {
		namespaces = []string{metav1.NamespaceAll}
	}
	for i, ns := range namespaces {
		store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: c.lister(k, ns, all, func(err error) { c.listed(k, w, i, err) }),
			ObjectType:    &unstructured.Unstructured{},
			Transform:     slim,
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc:    func(o any) { c.seen(k, o) },
				UpdateFunc: func(old, o any) { c.replaced(k, old, o); c.seen(k, o) },
				DeleteFunc: func(o any) { c.deleted(k, o) },
			},
		})
		w.stores, w.synced = append(w.stores, store), append(w.synced, informer.HasSynced)
		wg.Go(func() { informer.RunWithContext(ctx) })
	}
	return w
}

// lister asks for the objects of a kind, and says how that went.
func (c *Controller) lister(k *kind, namespace string, all bool, listed func(error)) cache.ListerWatcher {
	var r dynamic.ResourceInterface = c.api.Resource(k.gvr())
	if namespace != "" {
		r = c.api.Resource(k.gvr()).Namespace(namespace)
	}
	only := func(o *metav1.ListOptions) {
		if !all {
			o.LabelSelector = InstanceLabel + "=" + Instance
		}
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			only(&o)
			l, err := r.List(ctx, o)
			if ctx.Err() == nil {
				listed(err)
			}
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (kubewatch.Interface, error) {
			only(&o)
			return r.Watch(ctx, o)
		},
	}
}

// slim drops what is large and says nothing here.
func slim(o any) (any, error) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return o, nil
	}
	unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
	return u, nil
}

func (c *Controller) refOf(k *kind, o any) (ref, *unstructured.Unstructured) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return ref{}, nil
	}
	return ref{k, u.GetNamespace(), u.GetName()}, u
}

func (c *Controller) seen(k *kind, o any) {
	r, u := c.refOf(k, o)
	if u == nil {
		return
	}
	if k.role == roleTemplate {
		c.templateChanged(r)
	}
	c.queue.add(r, 0)
}

// replaced notes that an object went and another one of its name came while
// nobody looked.
func (c *Controller) replaced(k *kind, old, new any) {
	if _, a := c.refOf(k, old); a != nil {
		if _, b := c.refOf(k, new); b != nil && a.GetUID() != b.GetUID() {
			c.deleted(k, old)
		}
	}
}

func (c *Controller) deleted(k *kind, o any) {
	r, u := c.refOf(k, o)
	if u == nil {
		return
	}
	if k.role != roleTemplate {
		c.mu.Lock()
		c.gone[r] = append(c.gone[r], string(u.GetUID()))
		c.mu.Unlock()
	}
	c.queue.add(r, 0)
}

// object is what is known of an object; nil when it is not there. It is not to
// be changed.
func (c *Controller) object(r ref) *unstructured.Unstructured {
	c.mu.Lock()
	w := c.watches[r.kind]
	c.mu.Unlock()
	if w == nil {
		return nil
	}
	key := r.name
	if r.namespace != "" {
		key = r.namespace + "/" + r.name
	}
	for _, s := range w.stores {
		if o, ok, _ := s.GetByKey(key); ok {
			if u, ok := o.(*unstructured.Unstructured); ok {
				return u
			}
		}
	}
	return nil
}

// each calls f with every object of the kinds that are looked at.
func (c *Controller) each(f func(*kind, *unstructured.Unstructured)) {
	c.mu.Lock()
	watches := maps.Clone(c.watches)
	c.mu.Unlock()
	delete(watches, nil) // of definitions
	for k, w := range watches {
		for u := range w.objects() {
			f(k, u)
		}
	}
}

// keys are the names of the runs of all objects.
func (c *Controller) keys() map[string]bool {
	out := map[string]bool{}
	c.each(func(k *kind, u *unstructured.Unstructured) {
		if k.role != roleTemplate {
			out[c.key(u.GetNamespace(), string(u.GetUID()))] = true
		}
	})
	return out
}

// looksAt reports whether objects of a namespace are looked at.
func (c *Controller) looksAt(namespace string) bool {
	return len(c.cfg.Namespaces) == 0 || slices.Contains(c.cfg.Namespaces, namespace)
}

// Ready says why not everything of the cluster has been seen yet; nil when it
// has.
func (c *Controller) Ready() error {
	return c.lacks(func(*kind, *watch, int) bool { return false })
}

// lacks says what has not been seen yet, but for the lists that are excused.
func (c *Controller) lacks(excused func(k *kind, w *watch, store int) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.watches) == 0 {
		return errors.New("the cluster is not looked at yet")
	}
	if defs := c.watches[nil]; defs != nil {
		for _, o := range defs.stores[0].List() {
			if m, err := meta.Accessor(o); err == nil {
				if k := c.kindOf(m.GetName()); k != nil && c.watches[k] == nil {
					return fmt.Errorf("%s is not looked at yet", k.definition())
				}
			}
		}
	}
	for k, w := range c.watches {
		for i, synced := range w.synced {
			if !synced() && !excused(k, w, i) {
				what := "customresourcedefinitions"
				if k != nil {
					what = k.definition()
				}
				return fmt.Errorf("the first list of %s is not complete", what)
			}
		}
	}
	return nil
}

// awaitSync waits until every kind was listed once, or refused.
func (c *Controller) awaitSync(ctx context.Context) error {
	for n := 0; ; n++ {
		err := c.lacks(func(_ *kind, w *watch, i int) bool { return w.failing[i] })
		if err == nil {
			return nil
		}
		if n > 0 && n%300 == 0 {
			c.log.Warn("the cluster cannot be looked at: are the rights of cairn install there?", "error", err)
		}
		if err := clock.Sleep(ctx, c.d.Clock, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// retryAfter is how long the API server wants to be left alone.
func retryAfter(err error) time.Duration {
	if s, ok := apierrors.SuggestsClientDelay(err); ok {
		return time.Duration(min(s, 300)) * time.Second
	}
	return 0
}
