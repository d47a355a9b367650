package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// pageSize bounds how many whole objects are in memory at once.
const pageSize = 500

// A watcher lists and watches one kind for a reflector, and turns objects into
// items before anybody can keep them.
type watcher struct {
	cluster *Cluster
	kind    *kind
}

// List implements cache.Lister; reflectors call ListWithContext.
func (w *watcher) List(o metav1.ListOptions) (runtime.Object, error) {
	return w.ListWithContext(context.Background(), o)
}

// Watch implements cache.Watcher; reflectors call WatchWithContext.
func (w *watcher) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return w.WatchWithContext(context.Background(), o)
}

// ListWithContext reads the whole list page by page. The reflector's own
// paging would collect all pages whole.
func (w *watcher) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	l, err := w.list(ctx, o)
	w.cluster.listed(w.kind, err)
	return l, err
}

func (w *watcher) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	// "Any version" (0) would ignore the limit.
	o.ResourceVersion, o.ResourceVersionMatch, o.Limit = "", "", pageSize
	out := &itemList{}
	for {
		page := w.kind.list()
		if err := w.kind.client.Get().Resource(w.kind.resource).VersionedParams(&o, w.kind.codec).Do(ctx).Into(page); err != nil {
			return nil, err
		}
		l, err := meta.ListAccessor(page)
		if err != nil {
			return nil, err
		}
		err = meta.EachListItem(page, func(obj runtime.Object) error {
			i, err := shrink(obj)
			if err == nil {
				out.Items = append(out.Items, i)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read a page of %s: %w", w.kind.resource, err)
		}
		out.ResourceVersion = l.GetResourceVersion()
		if o.Continue = l.GetContinue(); o.Continue == "" {
			return out, nil
		}
	}
}

// WatchWithContext opens a watch, which may begin with the whole list.
func (w *watcher) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	req := w.kind.client.Get().Resource(w.kind.resource).VersionedParams(&o, w.kind.codec)
	if o.TimeoutSeconds != nil {
		req = req.Timeout(time.Duration(*o.TimeoutSeconds) * time.Second)
	}
	in, err := req.Watch(ctx)
	w.cluster.listed(w.kind, err)
	if err != nil {
		return nil, err
	}
	s := &stream{in: in, out: make(chan watch.Event), stop: make(chan struct{})}
	w.cluster.watching(w.kind, true)
	go func() {
		defer w.cluster.watching(w.kind, false)
		s.run(func(err error) { w.cluster.listed(w.kind, err) })
	}()
	return s, nil
}

// A stream is a watch whose objects are items.
type stream struct {
	in   watch.Interface
	out  chan watch.Event
	stop chan struct{}
	once sync.Once
}

func (s *stream) ResultChan() <-chan watch.Event { return s.out }

func (s *stream) Stop() { s.once.Do(func() { close(s.stop) }) }

func (s *stream) run(failed func(error)) {
	defer close(s.out)
	defer s.in.Stop()
	for {
		select {
		case <-s.stop:
			return
		case e, ok := <-s.in.ResultChan():
			if !ok {
				return
			}
			if e.Type == watch.Error {
				failed(apierrors.FromObject(e.Object))
			} else {
				i, err := shrink(e.Object)
				if err != nil {
					failed(err)
					return
				}
				e.Object = i
			}
			select {
			case s.out <- e:
			case <-s.stop:
				return
			}
		}
	}
}
