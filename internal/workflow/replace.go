package workflow

// Replace is the value with everything in it that is neither a list nor an
// object as f makes it. Lists and objects are new ones.
func Replace(v Value, f func(Value) Value) Value {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = Replace(e, f)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = Replace(e, f)
		}
		return out
	}
	return f(v)
}
