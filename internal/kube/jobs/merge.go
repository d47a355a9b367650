package jobs

import (
	"maps"
	"slices"
)

// keys are what tells the objects of a list in a PodSpec apart when it is
// patched (x-kubernetes-patch-merge-key of the API). Lists that are not here
// are replaced as a whole.
var keys = map[string]string{
	"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeDevices": "devicePath",
	"volumeMounts": "mountPath", "ports": "containerPort", "hostAliases": "ip", "imagePullSecrets": "name", "topologySpreadConstraints": "topologyKey",
	"resourceClaims": "name", "ownerReferences": "uid",
}

// merge is a strategic merge patch: objects are merged field by field, null
// removes, and objects of the lists above are merged with the one of their
// name, or removed by $patch: delete.
func merge(base, patch map[string]any) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			if v["$patch"] == "delete" {
				delete(out, k)
				continue
			}
			if v["$patch"] == "replace" {
				out[k] = merge(nil, without(v))
				continue
			}
			old, _ := out[k].(map[string]any)
			out[k] = merge(old, v)
		case []any:
			if key := keys[k]; key != "" {
				old, _ := out[k].([]any)
				out[k] = mergeList(old, v, key)
			} else {
				out[k] = v
			}
		default:
			if k != "$patch" {
				out[k] = v
			}
		}
	}
	return out
}

func without(m map[string]any) map[string]any {
	m = maps.Clone(m)
	delete(m, "$patch")
	return m
}

func mergeList(base, patch []any, key string) []any {
	out := slices.Clone(base)
	for _, x := range patch {
		p, is := x.(map[string]any)
		if !is {
			return patch
		}
		i := slices.IndexFunc(out, func(y any) bool {
			m, ok := y.(map[string]any)
			return ok && m[key] == p[key]
		})
		switch {
		case p["$patch"] == "replace" && p[key] == nil:
			out = nil
		case p["$patch"] == "delete":
			if i >= 0 {
				out = slices.Delete(out, i, i+1)
			}
		case i < 0:
			out = append(out, merge(nil, p))
		default:
			out[i] = merge(out[i].(map[string]any), p)
		}
	}
	return out
}
