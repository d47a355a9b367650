package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A token of a pod is in two parts. One is of its run, and stands in the pod's
// definition, which everybody reads who may view a namespace. The other is the
// namespace's, and stands in a Secret, which those may not read. A Secret for
// each run would be safe, too, and cost the API server two writes for each.
const (
	keyPrefix = "cairn-key-"
	keyField  = "key"
	// keyFor is how long is believed that a Secret is there, if no pod misses it.
	keyFor = 10 * time.Minute
)

// keyName is the name of the Secret with a key: another key is in another one,
// so that none ever changes.
func keyName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return keyPrefix + hex.EncodeToString(sum[:5])
}

// idOf tells a server from others that call a cluster the same: it is of the
// secret of its tokens, and of no namespace.
func idOf(d Demander) string {
	sum := sha256.Sum256([]byte(d.Key("")))
	return hex.EncodeToString(sum[:5])
}

// keySecret is the Secret with a key.
func (c *Controller) keySecret(namespace string) *corev1.Secret {
	key, yes := c.d.Demander.Key(namespace), true
	return &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: keyName(key), Namespace: namespace, Labels: map[string]string{LabelCluster: c.cfg.Cluster, "app.kubernetes.io/managed-by": "cairn"}},
		Immutable:  &yes, // kubelets need not watch it
		Type:       corev1.SecretTypeOpaque, Data: map[string][]byte{keyField: []byte(key)}}
}

// key sees to it that pods of a namespace find their key, and says in which
// Secret.
func (c *Controller) key(ctx context.Context, namespace string) (secret string, err error) {
	s := c.keySecret(namespace)
	now := c.d.Clock.Mono()
	c.mu.Lock()
	until, ok := c.keys[namespace]
	c.mu.Unlock()
	if ok && now < until {
		return s.Name, nil
	}
	if err := c.api.createKey(ctx, s); err != nil {
		return "", fmt.Errorf("make the Secret %s, without which pods cannot show who they are (cairn install prints the right to do that): %w", s.Name, err)
	}
	c.mu.Lock()
	c.keys[namespace] = now + keyFor
	c.mu.Unlock()
	return s.Name, nil
}

// missed notes that a pod waits for a key that somebody has deleted; the lock
// is held.
func (c *Controller) missed(namespace, trouble string) {
	if _, known := c.missing[namespace]; !known && strings.Contains(trouble, keyPrefix) {
		c.missing[namespace] = 0
		delete(c.keys, namespace)
	}
}

// missedAgain is how long after a failure a key is tried to be made again.
const missedAgain = 15 * time.Second

// rekey makes keys again that pods wait for: they start then.
func (c *Controller) rekey(ctx context.Context) {
	c.mu.Lock()
	var gone []string
	now := c.d.Clock.Mono()
	for ns, at := range c.missing {
		if now >= max(at, c.hold) {
			gone = append(gone, ns)
		}
	}
	c.mu.Unlock()
	for _, ns := range gone {
		_, err := c.key(ctx, ns)
		c.mu.Lock()
		delete(c.missing, ns)
		if err != nil && !leaving(err) {
			c.missing[ns] = now + max(missedAgain, retryAfter(err))
		}
		c.mu.Unlock()
		if err != nil {
			c.log.Warn("pods wait for a Secret", "namespace", ns, "error", err)
		}
	}
}

// leaving says whether a namespace is gone, or going with all that is in it.
func leaving(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}
