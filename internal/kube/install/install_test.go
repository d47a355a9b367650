package install_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/kube/install"
)

// object is what tests look at in a manifest.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Rules    []struct {
		APIGroups, Resources, Verbs []string
	}
}

func objects(t *testing.T, b []byte) []object {
	t.Helper()
	var out []object
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var o object
		if err := d.Decode(&o); err != nil {
			if err.Error() == "EOF" {
				return out
			}
			t.Fatal(err)
		}
		out = append(out, o)
	}
}

func names(list []object) (out []string) {
	for _, o := range list {
		out = append(out, o.Kind+" "+o.Metadata.Name)
	}
	return out
}

func TestManifest(t *testing.T) {
	all := install.Default()
	all.Namespace, all.Cluster, all.Storage, all.StorageClass, all.URL = "tools", "prod", "1Ti", "fast", "https://cairn.example.org"
	all.Argo, all.PullSecrets, all.Watch = true, false, []string{"shop", "data"}
	all.TLSSecret, all.ResetAdmin = "cairn-tls", true
	open := install.Default()
	open.NetworkPolicy = false
	for file, o := range map[string]install.Options{"default.yaml": install.Default(), "all.yaml": all, "open.yaml": open} {
		b, err := install.Manifest(o)
		if err != nil {
			t.Fatal(err)
		}
		// The definitions have golden files of their own.
		ours, _, ok := bytes.Cut(b, []byte("# What kubectl apply takes"))
		if !ok {
			t.Fatalf("%s: no definitions", file)
		}
		file = filepath.Join("testdata", file)
		goldentest.Check(t, file, ours)
		for _, o := range objects(t, b) {
			if text := o.Data["cairn.yaml"]; o.Kind == "ConfigMap" {
				if _, err := config.Parse("cairn.yaml", []byte(text)); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
		made := names(objects(t, b))
		removed, err := install.Removal(o)
		if err != nil {
			t.Fatal(err)
		}
		gone := names(objects(t, removed))
		if !strings.HasPrefix(gone[0], "CustomResourceDefinition") {
			t.Errorf("the first to go is %s, not the workflows", gone[0])
		}
		slices.Sort(made)
		slices.Sort(gone)
		if !slices.Equal(made, gone) {
			t.Errorf("made: %v\nremoved: %v", made, gone)
		}
	}
}

// What a user writes cannot become another field.
func TestRefused(t *testing.T) {
	for option, o := range map[string]func(*install.Options){
		"namespace":     func(o *install.Options) { o.Namespace = "a\nb" },
		"cluster":       func(o *install.Options) { o.Cluster = "prod-" }, // no value of a label
		"image":         func(o *install.Options) { o.Image = "a\n        command: [sh]" },
		"worker":        func(o *install.Options) { o.Worker = "" },
		"storage":       func(o *install.Options) { o.Storage = "10" },
		"storage-class": func(o *install.Options) { o.StorageClass = "{}" },
		"url":           func(o *install.Options) { o.URL = "https://a b" },
		"tls-secret":    func(o *install.Options) { o.TLSSecret = "a, b: c" },
		"watch":         func(o *install.Options) { o.Watch = []string{"a]"} },
	} {
		bad := install.Default()
		o(&bad)
		for _, print := range []func(install.Options) ([]byte, error){install.Manifest, install.Removal} {
			var e *install.Error
			if _, err := print(bad); !errors.As(err, &e) || e.Option != option {
				t.Errorf("%s: %v", option, err)
			}
		}
	}
	o := install.Default()
	o.TLSSecret, o.URL = "cairn-tls", "http://cairn.example.org"
	if _, err := install.Manifest(o); err == nil || !strings.Contains(err.Error(), "https:") {
		t.Errorf("links to what does not answer: %v", err)
	}
	for _, ns := range []string{"default", "kube-system"} {
		o := install.Default()
		o.Namespace = ns
		if _, err := install.Removal(o); err == nil {
			t.Errorf("uninstall would delete the namespace %s", ns)
		}
	}
}

// No right covers everything, and none lets the server give itself more.
func TestRights(t *testing.T) {
	b, err := install.Manifest(install.Default())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, o := range objects(t, b) {
		for _, r := range o.Rules {
			n++
			for _, s := range slices.Concat(r.APIGroups, r.Resources, r.Verbs) {
				if s == "*" || s == "escalate" || s == "bind" || s == "impersonate" || strings.Contains(s, "role") {
					t.Errorf("%s %s: %v", o.Kind, o.Metadata.Name, r)
				}
			}
			// It makes those of its pods; others it reads, if at all, by their names.
			if slices.Contains(r.Resources, "secrets") && !slices.Equal(r.Verbs, []string{"get"}) && !slices.Equal(r.Verbs, []string{"create"}) {
				t.Errorf("%s may do %v with secrets", o.Metadata.Name, r.Verbs)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d rules were found", n)
	}
}

// A pod reads its configuration when it starts: one that is corrected makes
// another pod.
func TestCorrected(t *testing.T) {
	o := install.Default()
	wrong, err := install.Manifest(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Worker = "registry.example.org/cairn-worker:1.0"
	right, err := install.Manifest(o)
	if err != nil {
		t.Fatal(err)
	}
	set := func(b []byte) string {
		_, after, _ := bytes.Cut(b, []byte("kind: StatefulSet"))
		before, _, _ := bytes.Cut(after, []byte("---"))
		return string(before)
	}
	if set(wrong) == "" || set(wrong) == set(right) {
		t.Error("the pod of a server whose configuration has changed stays as it is")
	}
}
