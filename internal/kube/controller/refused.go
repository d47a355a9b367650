package controller

import (
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// listed notes how the list of a kind went in one of its namespaces. One that is
// refused keeps no other kind waiting. It is said once: it is tried again by
// itself, with patience.
func (c *Controller) listed(k *kind, w *watch, store int, err error) {
	c.mu.Lock()
	was := w.failing[store]
	w.failing[store] = err != nil
	c.mu.Unlock()
	switch {
	case err != nil && !was:
		c.log.Error("a kind cannot be listed: its objects start nothing until it can; others do", "kind", k.definition(), "error", err, "cure", listCure(k, err))
	case err == nil && was:
		c.log.Info("a kind can be listed again", "kind", k.definition())
	}
}

// listCure is what helps where a kind cannot be listed.
func listCure(k *kind, err error) string {
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return "give the right to list and watch " + k.definition() + ": kubectl apply what cairn install prints"
	case apierrors.IsNotFound(err) && k.argo():
		return "its definition has to serve " + k.gvr().Version + ": correct it, or set argo: off for this cluster"
	case apierrors.IsNotFound(err):
		return "its definition has to serve " + k.gvr().Version + ": kubectl apply what cairn install prints"
	}
	return "it is tried again: does the API server answer kubectl get " + k.definition() + "?"
}

// uninformed is after how long is looked again whether the templates are there
// that an object may name.
const uninformed = time.Second

// informed says whether all templates are known that objects of a kind may name:
// without them a workflow would be refused for one that is there.
func (c *Controller) informed(k *kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, w := range c.watches {
		if other == nil || other.role != roleTemplate || other.argo() != k.argo() {
			continue
		}
		for _, synced := range w.synced {
			if !synced() {
				return false
			}
		}
	}
	return true
}
