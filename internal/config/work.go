package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Work says how runs are run.
type Work struct {
	Pool             string        `yaml:"pool" json:"pool" enum:"auto,on,off,docker,podman" doc:"Run tasks on this machine: on, off, by docker or podman instead of Cairn's own containers, or auto: on while only this machine can reach the server."`
	Slots            int           `yaml:"slots" json:"slots" doc:"Tasks on this machine at a time; 0: twice its processors."`
	Images           Size          `yaml:"images" json:"images" doc:"Unpacked images on this machine; what was not used for the longest goes when there is more."`
	MaxTasks         int           `yaml:"max_tasks" json:"max_tasks" doc:"Tasks at a time, in all; 0: no bound."`
	MaxNamespace     int           `yaml:"max_tasks_per_namespace" json:"max_tasks_per_namespace" doc:"The same for each namespace."`
	MaxRun           int           `yaml:"max_tasks_per_run" json:"max_tasks_per_run" doc:"The same for each run."`
	Keep             Duration      `yaml:"keep" json:"keep" doc:"How long ended runs stay, with their logs and artifacts, unless they say so themselves."`
	Lease            Duration      `yaml:"lease" json:"lease" doc:"How long a worker may be silent before its tasks are given to others. Shorter finds lost workers sooner; longer bears worse networks."`
	LogKeep          Duration      `yaml:"log_keep" json:"log_keep" doc:"How long the logs of ended runs stay, where that is shorter than their run does; 0: as long as the run."`
	LogLimit         Size          `yaml:"log_limit" json:"log_limit" doc:"How much is kept of what one task prints."`
	Folders          []string      `yaml:"folders,omitempty" json:"folders,omitempty" doc:"Folders of this machine that workflows may list and read (files:). Relative to this file. One or a list." example:"[/srv/data]"`
	PrivateAddresses bool          `yaml:"private_addresses" json:"private_addresses" doc:"Workflows may have the server fetch from its own loopback addresses and from link-local ones. Always so while only this machine can reach the server."`
	Secrets          []WorkSecret  `yaml:"secrets,omitempty" json:"secrets,omitempty" doc:"Accounts with which the server fetches and stores artifacts. Workflows name them; tasks never see them."`
	Clusters         []WorkCluster `yaml:"clusters,omitempty" json:"clusters,omitempty" doc:"Kubernetes clusters that hand in workflows, and in whose pods their tasks run. See docs/kubernetes.md."`
}

// WorkCluster is a Kubernetes cluster whose custom resources are runs.
type WorkCluster struct {
	Name       string   `yaml:"name" json:"name" required:"yes" doc:"What to call the cluster. Keep it: its runs are named by it. a-z, 0-9, '.', '_' and '-'." example:"prod"`
	Kubeconfig string   `yaml:"kubeconfig,omitempty" json:"kubeconfig,omitempty" doc:"File that says where its API server is and who we are there. Relative to this file. Without it, the cluster in which this server runs." example:"prod.kubeconfig"`
	Context    string   `yaml:"context,omitempty" json:"context,omitempty" doc:"The context in that file, when it is not its current one." example:"prod"`
	Namespaces []string `yaml:"namespaces,omitempty" json:"namespaces,omitempty" doc:"Namespaces whose workflows are run; all when not set. One or a list." example:"[data]"`
	Argo       string   `yaml:"argo" json:"argo" enum:"auto,labelled,off" doc:"Argo's workflows: those labelled workflows.argoproj.io/controller-instanceid: cairn, none, or auto: all where Argo is not installed, else those labelled."`
	Server     string   `yaml:"server" json:"server" required:"yes" doc:"This server, as pods of the cluster reach it: https:, or http: where nobody listens to the network between them." example:"https://cairn.cairn.svc:5080"`
	CAFile     string   `yaml:"ca_file,omitempty" json:"ca_file,omitempty" doc:"File with the certificates (PEM) by which pods know this server, when server is https: and its CA one of your own. They are public: they stand in the pods. Read again for each Job. Relative to this file." example:"ca.crt"`
	Worker     string   `yaml:"worker" json:"worker" required:"yes" doc:"Image of cairn-worker, which is put beside programs into their pods." example:"registry.example.org/cairn-worker:1.0"`
	Queue      string   `yaml:"queue,omitempty" json:"queue,omitempty" doc:"Queue of Kueue that Jobs are given to." example:"batch"`
	Warm       Duration `yaml:"warm,omitempty" json:"warm,omitempty" doc:"Have the runs of one namespace share pods, which wait so long for more: many small runs then cost the cluster next to nothing. 0: each run has pods of its own." example:"5m"`
	// The brakes.
	MaxPodsPerRun int    `yaml:"max_pods_per_run,omitempty" json:"max_pods_per_run,omitempty" doc:"Pods of one run at a time, for tasks of one kind; 20 when 0." example:"50"`
	MaxPods       int    `yaml:"max_pods,omitempty" json:"max_pods,omitempty" doc:"Pods of all runs at a time; 1000 when 0." example:"500"`
	PodRate       int    `yaml:"pod_rate,omitempty" json:"pod_rate,omitempty" doc:"Pods that are made a second; 10 when 0." example:"20"`
	ImageVolumes  string `yaml:"image_volumes" json:"image_volumes" enum:"auto,on,off" doc:"Mount the image of the worker into pods instead of copying it with an init container, which spares the API server a fifth of what a pod costs: on, off, or auto: where Kubernetes is 1.35 or newer and all nodes have containerd 2.1, CRI-O 1.33 or newer."`
}

// WorkSecret is an account that workflows name.
type WorkSecret struct {
	Name     string `yaml:"name" json:"name" required:"yes" doc:"What workflows call it." example:"minio"`
	Username string `yaml:"username,omitempty" json:"username,omitempty" doc:"The account, or the ID of an access key." example:"AKIAIOSFODNN7EXAMPLE"`
	File     string `yaml:"file,omitempty" json:"file,omitempty" doc:"File with its password or secret key, read again whenever it is needed. Relative to this file." example:"minio.secret"`
	Env      string `yaml:"env,omitempty" json:"env,omitempty" doc:"Or the name of the environment variable with it."`
	// Whoever writes a workflow chooses where a password is sent.
	Hosts []string `yaml:"hosts,omitempty" json:"hosts,omitempty" doc:"Hosts (with their ports, if any) that may be given the password, by http and git. Of s3 none: only signatures are sent. One or a list." example:"[git.example.org]"`
}

func defaultWork() Work {
	return Work{Pool: "auto", Images: 20 << 30, Keep: 30 * Day, Lease: Duration(30 * time.Second), LogLimit: 64 << 20}
}

// defaultWorkCluster is what an entry of work.clusters starts from.
func defaultWorkCluster() WorkCluster { return WorkCluster{Argo: "auto", ImageVolumes: "auto"} }

// files adds the keys that name files.
func (w *Work) files(to map[string]*string) {
	for i := range w.Clusters {
		to[fmt.Sprintf("work.clusters#%d.kubeconfig", i+1)] = &w.Clusters[i].Kubeconfig
		to[fmt.Sprintf("work.clusters#%d.ca_file", i+1)] = &w.Clusters[i].CAFile
	}
	for i := range w.Folders {
		to[fmt.Sprintf("work.folders#%d", i+1)] = &w.Folders[i]
		if len(w.Folders) == 1 { // a single one may stand without a list
			to["work.folders"] = &w.Folders[i]
			delete(to, "work.folders#1")
		}
	}
	for i := range w.Secrets {
		to[fmt.Sprintf("work.secrets#%d.file", i+1)] = &w.Secrets[i].File
	}
}

func (c *Config) validateWork(at func(key, format string, args ...any) Problem) (out []Problem) {
	w := &c.Work
	fail := func(key, format string, args ...any) { out = append(out, at("work."+key, format, args...)) }
	for key, n := range map[string]int{"slots": w.Slots, "max_tasks": w.MaxTasks, "max_tasks_per_namespace": w.MaxNamespace, "max_tasks_per_run": w.MaxRun} {
		if n < 0 || n > 1_000_000 {
			fail(key, "%d is out of bounds: choose from 0 to 1000000", n)
		}
	}
	if w.Images < 1<<20 {
		fail("images", "%s is too small for an image: write a size such as 20GiB", w.Images)
	}
	if w.LogLimit < 1<<10 || w.LogLimit > 1<<40 {
		fail("log_limit", "%s is out of bounds: choose from 1KiB to 1TiB", w.LogLimit)
	}
	if w.Keep < Duration(60e9) || w.Keep > maxDuration {
		fail("keep", "%s is out of bounds: choose from 1m to %s", w.Keep, maxDuration)
	}
	if w.LogKeep != 0 && (w.LogKeep < Duration(time.Minute) || w.LogKeep > maxDuration) {
		fail("log_keep", "%s is out of bounds: choose from 1m to %s, or 0s", w.LogKeep, maxDuration)
	}
	if w.Lease < Duration(time.Second) || w.Lease > Duration(time.Hour) {
		fail("lease", "%s is out of bounds: choose from 1s to 1h", w.Lease)
	}
	for i, f := range w.Folders {
		key := "folders"
		if len(w.Folders) > 1 {
			key = fmt.Sprintf("%s#%d", key, i+1)
		}
		if f == "" || filepath.Clean(f) == "/" {
			fail(key, "%.80q: name a folder below the root", f)
		}
	}
	for i, s := range w.Secrets {
		key := fmt.Sprintf("secrets#%d", i+1)
		if !pathNameRE.MatchString(s.Name) {
			fail(key+sub(s.Name, ".name"), "secret %d: %.80q is no name: use a-z, 0-9 and '-'", i+1, s.Name)
		}
		if slices.ContainsFunc(w.Secrets[:i], func(o WorkSecret) bool { return o.Name == s.Name }) {
			fail(key+".name", "another secret is called %q, too: choose another name", s.Name)
		}
		for j, h := range s.Hosts {
			if !hostRE.MatchString(h) {
				k := key + ".hosts"
				if len(s.Hosts) > 1 {
					k = fmt.Sprintf("%s#%d", k, j+1)
				}
				fail(k, "%.80q is no host: write git.example.org or git.example.org:8443, without https:// and without a path", h)
			}
		}
		if (s.File == "") == (s.Env == "") {
			fail(key, "secret %d: name one of file and env", i+1)
		}
	}
	w.validateClusters(fail)
	return out
}

func (w *Work) validateClusters(fail func(key, format string, args ...any)) {
	for i, k := range w.Clusters {
		key := fmt.Sprintf("clusters#%d", i+1)
		if k.Name == "" {
			fail(key, "cluster %d has no name: write name: prod", i+1)
			continue
		}
		if !poolRE.MatchString(k.Name) {
			fail(key+".name", "cluster %d: %.80q is no name: use at most 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last", i+1, k.Name)
		}
		if slices.ContainsFunc(w.Clusters[:i], func(o WorkCluster) bool { return o.Name == k.Name }) {
			fail(key+".name", "another cluster is called %q, too: choose another name", k.Name)
		}
		if k.Context != "" && k.Kubeconfig == "" {
			fail(key+".context", "a context stands in a kubeconfig: name that, too")
		}
		for j, ns := range k.Namespaces {
			if !pathNameRE.MatchString(ns) {
				at := key + ".namespaces"
				if len(k.Namespaces) > 1 {
					at = fmt.Sprintf("%s#%d", at, j+1)
				}
				fail(at, "%.80q is no namespace: use a-z, 0-9 and '-'", ns)
			}
		}
		if u, err := url.Parse(k.Server); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			fail(key+sub(k.Server, ".server"), "cluster %d: %.80q is not where pods reach this server: write an address such as http://cairn.cairn.svc:5080", i+1, k.Server)
		}
		if k.CAFile != "" && !strings.HasPrefix(k.Server, "https:") {
			fail(key+".ca_file", "cluster %d: %.80q shows no certificate: write https: in server, or leave ca_file out", i+1, k.Server)
		}
		if k.Warm < 0 || k.Warm > Day {
			fail(key+".warm", "%s is out of bounds: choose from 0s to 1d", k.Warm)
		}
		for name, n := range map[string]int{"max_pods_per_run": k.MaxPodsPerRun, "max_pods": k.MaxPods, "pod_rate": k.PodRate} {
			if n < 0 || n > 100_000 {
				fail(key+"."+name, "%d is out of bounds: choose from 0 to 100000", n)
			}
		}
		if k.Worker == "" || strings.ContainsAny(k.Worker, " \t\n") {
			fail(key+sub(k.Worker, ".worker"), "cluster %d: %.80q is no image: write the one of cairn-worker, such as registry.example.org/cairn-worker:1.0", i+1, k.Worker)
		}
	}
}
