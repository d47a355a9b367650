// Package install prints what puts Cairn on a Kubernetes cluster, and what
// takes it away again.
//
// It owns the manifests: a namespace, the definitions of custom resources, the
// rights of the server and of people, its claim, its pod and its Service. It
// promises to be pure, that its pod passes the restricted Pod Security profile,
// that it grants no more than what the controller and its workers ask the API
// server for, and that nothing a user writes becomes another field of a
// manifest. It does not talk to the cluster: kubectl does, and shows people
// before what it is going to do.
package install

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"text/template"

	"cairn.dev/cairn/internal/kube/crd"
)

// Options say how Cairn is installed.
type Options struct {
	// Namespace of the server; it is made, and deleted again.
	Namespace string
	// Cluster is what the cluster is called: runs are named by it.
	Cluster string
	// Image of the server, and of the worker that is put into pods of tasks.
	Image, Worker string
	// Storage is the size of its claim, and StorageClass its class; "" is the
	// cluster's default.
	Storage, StorageClass string
	// URL is where people reach the server, for links; may be "".
	URL string
	// Argo adds small definitions of Argo's kinds. Where Argo is, they would
	// replace its own.
	Argo bool
	// PullSecrets lets the server read secrets, to look into private images.
	PullSecrets bool
	// TLSSecret is the Secret in the server's namespace with tls.crt, tls.key and
	// ca.crt: the server speaks https, and workers know it by that CA. "": http.
	TLSSecret string
	// NetworkPolicy lets the server's port be reached, and nothing else of it.
	NetworkPolicy bool
	// ResetAdmin gives the account admin a new secret whenever the pod starts,
	// which is in the log of its container reset-admin: the way back in.
	ResetAdmin bool
	// Watch are the namespaces whose objects are looked at; all when empty.
	Watch []string
}

// Default are the options where none are given.
func Default() Options {
	return Options{Namespace: "cairn", Cluster: "local", Image: "registry.example.org/cairn:latest", Worker: "registry.example.org/cairn-worker:latest", Storage: "10Gi", PullSecrets: true, NetworkPolicy: true}
}

// An Error says which option is wrong, and how to write it.
type Error struct{ Option, Value, Cure string }

func (e *Error) Error() string { return fmt.Sprintf("--%s %.80q: %s", e.Option, e.Value, e.Cure) }

var (
	labelRE   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	classRE   = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	clusterRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`) // it is the value of a label
	imageRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}$`)
	sizeRE    = regexp.MustCompile(`^[1-9][0-9]{0,8}(Mi|Gi|Ti)$`)
	urlRE     = regexp.MustCompile(`^https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?$`)
)

// check looks at each option: they are put into YAML as they are.
func (o Options) check() error {
	for _, c := range []struct {
		option, value string
		re            *regexp.Regexp
		empty         bool
		cure          string
	}{
		{"namespace", o.Namespace, labelRE, false, "use a-z, 0-9 and '-'"},
		{"cluster", o.Cluster, clusterRE, false, "use a-z, 0-9, '.', '_' and '-', a letter or digit first and last"},
		{"image", o.Image, imageRE, false, "write a reference such as registry.example.org/cairn:1.0"},
		{"worker", o.Worker, imageRE, false, "write a reference such as registry.example.org/cairn-worker:1.0"},
		{"storage", o.Storage, sizeRE, false, "write a size such as 10Gi"},
		{"storage-class", o.StorageClass, classRE, true, "write the name of a StorageClass"},
		{"tls-secret", o.TLSSecret, classRE, true, "write the name of a Secret with tls.crt, tls.key and ca.crt"},
		{"url", o.URL, urlRE, true, "write an address such as https://cairn.example.org"},
	} {
		if c.value == "" && c.empty {
			continue
		}
		if !c.re.MatchString(c.value) {
			return &Error{c.option, c.value, c.cure}
		}
	}
	if o.TLSSecret != "" && strings.HasPrefix(o.URL, "http:") {
		return &Error{"url", o.URL, "write https:, which is what the server speaks with --tls-secret"}
	}
	// It is deleted with everything in it when Cairn goes.
	if o.Namespace == "default" || strings.HasPrefix(o.Namespace, "kube-") {
		return &Error{"namespace", o.Namespace, "name one that is Cairn's alone: uninstall deletes it"}
	}
	for _, ns := range o.Watch {
		if !labelRE.MatchString(ns) {
			return &Error{"watch", ns, "use a-z, 0-9 and '-'"}
		}
	}
	return nil
}

//go:embed server.yaml
var server string

// settings are the cairn.yaml of the server.
//
//go:embed config.yaml
var settings string

//go:embed rights.yaml
var rights string

// Manifest is everything, in the order in which it has to come.
func Manifest(o Options) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	defs, err := definitions(o)
	if err != nil {
		return nil, err
	}
	for _, part := range []string{rights, server} {
		if err := render(&out, part, o); err != nil {
			return nil, err
		}
		out.WriteString("---\n")
	}
	out.WriteString("# What kubectl apply takes as a workflow. Deleting these deletes all workflows.\n")
	out.Write(defs)
	return out.Bytes(), nil
}

// Removal is what kubectl delete is to delete: workflows first, while the
// server is there to cancel what runs.
func Removal(o Options) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	defs, err := definitions(o)
	if err != nil {
		return nil, err
	}
	out.Write(defs)
	for _, part := range []string{server, rights} {
		out.WriteString("---\n")
		if err := render(&out, part, o); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func definitions(o Options) ([]byte, error) {
	list, err := crd.Ours()
	if err != nil {
		return nil, err
	}
	if o.Argo {
		list = append(list, crd.Argo()...)
	}
	return crd.YAML(list...)
}

func render(out *bytes.Buffer, text string, o Options) error {
	var conf bytes.Buffer
	if err := fill(&conf, settings, o); err != nil {
		return err
	}
	name := "cairn"
	if o.Namespace != name { // those without a namespace must not be another installation's
		name += "-" + o.Namespace
	}
	return fill(out, text, struct {
		Options
		Name     string
		Indented string // the configuration, as a block of the ConfigMap
		Sum      string // of it: a pod does not see by itself that it has changed
	}{o, name, indented(conf.String()), fmt.Sprintf("%x", sha256.Sum256(conf.Bytes()))[:16]})
}

func fill(out *bytes.Buffer, text string, data any) error {
	t, err := template.New("manifest").Option("missingkey=error").Parse(text)
	if err != nil {
		return fmt.Errorf("read a manifest: %w", err)
	}
	if err := t.Execute(out, data); err != nil {
		return fmt.Errorf("write a manifest: %w", err)
	}
	return nil
}

func indented(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString("    " + line)
	}
	return out.String()
}
