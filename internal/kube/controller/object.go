package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
)

// document is an object as its author wrote it: without what API servers and
// controllers add, and without the fields of its spec that are left out.
func document(u *unstructured.Unstructured, without ...string) ([]byte, error) {
	meta := map[string]any{"name": u.GetName()}
	if ns := u.GetNamespace(); ns != "" {
		meta["namespace"] = ns
	}
	if l := u.GetLabels(); len(l) > 0 {
		meta["labels"] = l
	}
	spec, _ := u.Object["spec"].(map[string]any)
	kept := make(map[string]any, len(spec))
	for k, v := range spec {
		if !slices.Contains(without, k) {
			kept[k] = v
		}
	}
	b, err := json.Marshal(map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind(), "metadata": meta, "spec": kept})
	if err != nil {
		return nil, fmt.Errorf("write %s %s as a document: %w", u.GetKind(), u.GetName(), err)
	}
	return b, nil
}

// steering are the fields of a Workflow that speak of its run and not of what
// it does. A run begins suspended if they say so; it does not begin stopped.
var steering = []string{"suspended", "suspend", "shutdown"}

// fingerprint tells what workflows do apart. Labels do nothing: people and
// controllers put them there and take them away while it runs.
func fingerprint(u *unstructured.Unstructured) (string, error) {
	bare := &unstructured.Unstructured{Object: maps.Clone(u.Object)}
	bare.Object["metadata"] = map[string]any{"name": u.GetName(), "namespace": u.GetNamespace()}
	doc, err := document(bare, steering...)
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:8]), err
}

// A wish is what the spec of an object says about its run that goes on.
type wish struct {
	suspend *bool // nil: nothing
	stop    string
}

// The ways to stop, in Argo's words.
const (
	stop      = "Stop"      // exit handlers run
	terminate = "Terminate" // at once
)

func wishOf(u *unstructured.Unstructured) wish {
	var w wish
	for _, name := range []string{"suspended", "suspend"} { // ours and Argo's
		if v, ok, err := unstructured.NestedBool(u.Object, "spec", name); ok && err == nil {
			w.suspend = &v
		}
	}
	if s, ok, err := unstructured.NestedString(u.Object, "spec", "shutdown"); ok && err == nil {
		w.stop = s
	}
	return w
}

// refusal says what is wrong with a document, for a condition: each problem
// with the path of its field. Lines would mean nothing: it is no file any more.
func refusal(problems []workflow.Problem) string {
	const most = 5
	var out []string
	for i, p := range problems {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(problems)-most))
			break
		}
		s := cut(p.Text, 400)
		if p.Path != "" {
			s = cut(p.Path, 200) + ": " + s
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// cut shortens a text to so many bytes of JSON, between characters.
func cut(s string, most int) string {
	const dots = "…"
	n, end := 0, 0 // end is where it can be cut so that the dots fit
	for i, c := range s {
		if n+len(dots) <= most {
			end = i
		}
		switch {
		case c < ' ' || c == '<' || c == '>' || c == '&' || c == utf8.RuneError || c == '\u2028' || c == '\u2029':
			n += len(`\u0000`)
		case c == '"' || c == '\\':
			n += 2
		default:
			n += utf8.RuneLen(c)
		}
		if n > most {
			return s[:end] + dots
		}
	}
	return s
}

// options are how documents of a namespace are read: templates come from what
// is watched, ConfigMaps are asked for. What could not be asked for is in
// failed, and the reading counts for nothing.
func (c *Controller) options(ctx context.Context, argo bool, failed *error) front.Options {
	return front.Options{
		Cluster: true,
		Templates: func(kindName, namespace, name string) []byte {
			for _, k := range c.kinds {
				if k.name != kindName || k.argo() != argo || k.cluster != (kindName == "ClusterWorkflowTemplate") {
					continue
				}
				if k.cluster {
					namespace = ""
				}
				if u := c.object(ref{k, namespace, name}); u != nil {
					if b, err := document(u); err == nil {
						return b
					}
				}
			}
			return nil
		},
		ConfigMap: func(namespace, name, key string) (string, bool) {
			ctx, end := context.WithTimeout(ctx, c.patience)
			defer end()
			all := c.api.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace)
			u, err := all.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				if !apierrors.IsNotFound(err) {
					*failed = fmt.Errorf("read ConfigMap %s/%s: %w", namespace, name, err)
				}
				return "", false
			}
			v, ok, err := unstructured.NestedString(u.Object, "data", key)
			return v, ok && err == nil
		},
	}
}

// moment is a time as Kubernetes writes it.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}
