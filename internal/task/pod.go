package task

import (
	"bytes"
	"slices"
	"strings"
)

// PodName stands for the name of the pod that will run a task, until there is
// one: in commands, variables, scripts, the contents of files and requests. It
// has characters that Unicode keeps for such uses (noncharacters, section 23.7).
const PodName = "\uFDD0pod.name\uFDD1"

// In is t as the pod of a name gets it.
func (t Task) In(pod string) Task {
	if !t.PodName {
		return t
	}
	t.PodName = false
	t.Command, t.Args, t.Env, t.Inputs = inPod(t.Command, pod), inPod(t.Args, pod), envIn(t.Env, pod), inputsIn(t.Inputs, pod)
	t.Script = strings.ReplaceAll(t.Script, PodName, pod)
	if t.Resource != nil {
		r := *t.Resource
		r.Manifest = bytes.ReplaceAll(r.Manifest, []byte(PodName), []byte(pod))
		r.Name, r.Selector = strings.ReplaceAll(r.Name, PodName, pod), strings.ReplaceAll(r.Selector, PodName, pod)
		t.Resource = &r
	}
	return t
}

// In is o as the pod of a name gets it.
func (o *Own) In(pod string) *Own {
	if o == nil {
		return nil
	}
	out := *o
	out.Command, out.Args, out.Env, out.Inputs = inPod(o.Command, pod), inPod(o.Args, pod), envIn(o.Env, pod), inputsIn(o.Inputs, pod)
	if o.Script != nil {
		s := strings.ReplaceAll(*o.Script, PodName, pod)
		out.Script = &s
	}
	return &out
}

func inPod(words []string, pod string) []string {
	out := slices.Clone(words)
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], PodName, pod)
	}
	return out
}

func envIn(env []Env, pod string) []Env {
	out := slices.Clone(env)
	for i := range out {
		out[i].Value = strings.ReplaceAll(out[i].Value, PodName, pod)
	}
	return out
}

func inputsIn(inputs []Input, pod string) []Input {
	out := slices.Clone(inputs)
	for i := range out {
		if c := out[i].Content; c != nil {
			out[i].Content = bytes.ReplaceAll(c, []byte(PodName), []byte(pod))
		}
	}
	return out
}
