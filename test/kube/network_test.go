package kube_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/test/cluster"
)

// serveTLS has pods reach the server by https, with a certificate of a CA that
// nobody knows; it returns the CA.
func (f *farm) serveTLS() string {
	f.t.Helper()
	s := httptest.NewUnstartedServer(f.handler)
	addr, err := f.cluster.Expose(s.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		f.t.Fatal(err)
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	f.t.Cleanup(s.Close)
	f.jobs.Server = "https://" + addr
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// with is the farm with other settings, for a part of a test.
func (f *farm) with(t *testing.T, edit func()) {
	t.Helper()
	f.stop()
	jobs := f.jobs
	edit()
	f.start()
	t.Cleanup(func() {
		f.stop()
		f.jobs = jobs
		f.start()
	})
}

// How pods find the server, what they show it, and what their neighbours see.
func TestNetwork(t *testing.T) {
	t.Parallel()
	ca := ""
	f := newFarm(t, cluster.Options{Nodes: 1}, func(f *farm) {
		ca = f.serveTLS()
		f.jobs.CA = func() (string, error) { return ca, nil }
		f.jobs.FindImageVolume = true
	})
	f.cluster.Apply(`{apiVersion: v1, kind: Namespace, metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}}`)

	t.Run("https, by a CA of its own", func(t *testing.T) {
		id := f.run(document("tls", 20, "command: ['true']"))
		f.succeeds(id, 20, time.Minute)
		if got := f.cluster.Kubectl("get", "jobs", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[0].spec.template.spec.volumes[?(@.name=='cairn-bin')].image.reference}"); got != f.jobs.Worker {
			t.Errorf("these nodes mount images, and the worker's is not mounted: %q", got)
		}
	})
	t.Run("a CA that it does not know", func(t *testing.T) {
		f.with(t, func() { f.jobs.CA = nil })
		i := f.ends(f.run(document("untrusted", 1, "command: ['true']")), time.Minute)
		why := f.why(i)
		t.Log(i.Phase, why)
		if i.Phase != machine.Errored || !strings.Contains(why, "work.clusters[].ca_file") {
			t.Errorf("%v: %s", i.Phase, why)
		}
	})
	// A task is of the same user as the worker, and may look where it likes.
	spy := `command: [sh, -c, 'if env | grep -e CAIRN_TOKEN -e CAIRN_KEY -e CAIRN_CA; then exit 1; fi; for p in /proc/[0-9]*; do if tr "\0" "\n" < $p/environ | grep -q CAIRN_KEY; then echo $p; exit 1; fi; done 2>/dev/null; echo seen nothing']`
	for _, c := range []struct{ namespace, isolation string }{{"default", ""}, {"default", "shared"}, {"strict", ""}} {
		t.Run(fmt.Sprint("what tasks see of a worker in ", c.namespace, " ", c.isolation), func(t *testing.T) {
			fields := spy
			if c.isolation != "" {
				fields = "isolation: " + c.isolation + ", " + spy
			}
			id := f.runIn(c.namespace, document("spy", 3, fields))
			i := f.succeeds(id, 3, time.Minute)
			t.Log("isolation", i.Isolation)
			f.mu.Lock()
			defer f.mu.Unlock()
			if got := strings.Count(strings.Join(f.lines[id], ""), "seen nothing\n"); got != 3 {
				t.Errorf("%q", f.lines[id])
			}
		})
	}
	t.Run("who may view pods", func(t *testing.T) { f.viewed(t) })
	t.Run("a Secret that somebody deletes", func(t *testing.T) { // is made again, and the run goes on
		f.cluster.Kubectl("create", "namespace", "tidy")
		f.succeeds(f.runIn("tidy", document("before", 1, "command: ['true']")), 1, time.Minute)
		f.cluster.Kubectl("delete", "jobs", "--all", "--namespace=tidy", "--cascade=foreground") // kubelets keep what pods use
		secrets := func() string {
			return strings.TrimSpace(f.cluster.Kubectl("get", "secrets", "--namespace=tidy", "-l", "cairn.dev/pool=prod", "-o", "name"))
		}
		f.cluster.Kubectl("delete", secrets(), "--namespace=tidy")
		f.succeeds(f.runIn("tidy", document("after", 1, "command: ['true']")), 1, 90*time.Second)
		if secrets() == "" {
			t.Error("it ran without")
		}
	})
	t.Run("the policies of the page", func(t *testing.T) {
		page, err := os.ReadFile("../../docs/kubernetes.md")
		if err != nil {
			t.Fatal(err)
		}
		blocks := regexp.MustCompile("(?s)```yaml\n(apiVersion: networking.*?)```").FindAllSubmatch(page, -1)
		if len(blocks) == 0 {
			t.Fatal("the page has none")
		}
		for _, b := range blocks {
			if out, err := f.cluster.RunKubectl(t.Context(), string(b[1]), "apply", "--server-side", "--namespace=strict", "-f", "-"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		// This network enforces none: that a run ends says that none is in its way.
		f.succeeds(f.runIn("strict", document("policed", 2, "command: ['true']")), 2, time.Minute)
	})
}

// viewed asks the server as somebody who may look at pods, and not at secrets.
func (f *farm) viewed(t *testing.T) {
	id := f.run(document("viewed", 1, "command: [sleep, 1000]"))
	var pod struct {
		Spec struct {
			Containers []struct {
				Env []struct {
					Name, Value string
					ValueFrom   struct{ SecretKeyRef struct{ Name, Key string } }
				}
			}
		}
	}
	await(t, "its pod runs", func() (string, bool) {
		out := f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[0].status.phase}")
		return out, out == "Running"
	})
	name := strings.TrimSpace(f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "name"))
	if err := json.Unmarshal([]byte(f.cluster.Kubectl("get", name, "-o", "json")), &pod); err != nil {
		t.Fatal(err)
	}
	env, secret := map[string]string{}, ""
	for _, e := range pod.Spec.Containers[0].Env {
		env[e.Name] = e.Value
		secret += e.ValueFrom.SecretKeyRef.Name
	}
	if !strings.HasPrefix(secret, "cairn-key-") || !strings.HasPrefix(env["CAIRN_TOKEN"], "cairn_pod_") {
		t.Fatalf("%v %q", env, secret)
	}
	ask := func(token string) int {
		r := httptest.NewRequest(http.MethodPost, task.PathWork, strings.NewReader(`{"worker":"thief","want":1}`))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		return w.Code
	}
	for _, token := range []string{env["CAIRN_TOKEN"], strings.TrimSuffix(env["CAIRN_TOKEN"], ".$(CAIRN_KEY)"), strings.Replace(env["CAIRN_TOKEN"], "$(CAIRN_KEY)", "", 1)} {
		if got := ask(token); got != http.StatusUnauthorized {
			t.Errorf("the server answers %d", got)
		}
	}
	if got := ask(strings.Replace(env["CAIRN_TOKEN"], "$(CAIRN_KEY)", f.dispatch.Key("default"), 1)); got != http.StatusOK {
		t.Errorf("the pod itself is answered %d", got)
	}
	f.cluster.Apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: vic, namespace: default}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\nsubjects: [{kind: User, name: vic, apiGroup: rbac.authorization.k8s.io}]\n")
	for what, want := range map[string]string{"pods": "yes", "secrets": "no"} {
		await(t, "vic may see "+what+": "+want, func() (string, bool) {
			out, _ := f.cluster.RunKubectl(t.Context(), "", "auth", "can-i", "get", what, "--as=vic", "--namespace=default")
			return out, strings.TrimSpace(out) == want
		})
	}
	if err := f.server.Cancel(t.Context(), id, "ann", true); err != nil {
		t.Fatal(err)
	}
	f.ends(id, time.Minute)
}

// kueue plays what Kueue does with Jobs: it lets them in one after the other,
// and stops one whose size is not the one it was let in with. The program itself
// is not to be had here.
type kueue struct {
	f *farm

	mu     sync.Mutex
	sizes  map[string]int32 // of Jobs that were let in
	wrong  []string
	queues map[string]bool
}

func (k *kueue) play(ctx context.Context) {
	for ctx.Err() == nil {
		var l struct {
			Items []struct {
				Metadata struct {
					Name   string
					Labels map[string]string
				}
				Spec struct {
					Suspend     bool
					Completions int32
				}
			}
		}
		out, err := k.f.cluster.RunKubectl(ctx, "", "get", "jobs", "-l", "kueue.x-k8s.io/queue-name", "-o", "json")
		if err != nil || json.Unmarshal([]byte(out), &l) != nil {
			continue
		}
		k.mu.Lock()
		for _, j := range l.Items {
			k.queues[j.Metadata.Labels["kueue.x-k8s.io/queue-name"]] = true
			size, in := k.sizes[j.Metadata.Name]
			switch {
			case in && size != j.Spec.Completions:
				k.wrong = append(k.wrong, fmt.Sprintf("%s was let in with %d pods, and has %d", j.Metadata.Name, size, j.Spec.Completions))
			case !in && !j.Spec.Suspend:
				k.wrong = append(k.wrong, j.Metadata.Name+" did not wait")
			case !in:
				k.sizes[j.Metadata.Name] = j.Spec.Completions
				if _, err := k.f.cluster.RunKubectl(ctx, "", "patch", "job", j.Metadata.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"suspend":false,"completions":%d,"parallelism":%d}}`, j.Spec.Completions, j.Spec.Completions)); err != nil && ctx.Err() == nil {
					k.wrong = append(k.wrong, err.Error())
				}
			}
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// Jobs that a queue lets in: they wait in it, keep their size, and a run that
// needs more pods gets another Job.
func TestQueues(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, func(f *farm) { f.jobs.Queue = "batch" })
	t.Run("without Kueue", func(t *testing.T) {
		f.succeeds(f.run(document("none", 3, "command: ['true']")), 3, time.Minute)
	})
	f.cluster.Apply(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: localqueues.kueue.x-k8s.io, annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-sigs/kueue"}}
spec:
  group: kueue.x-k8s.io
  scope: Namespaced
  names: {kind: LocalQueue, plural: localqueues}
  versions: [{name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`)
	t.Cleanup(func() {
		if out, err := f.cluster.RunKubectl(context.Background(), "", "delete", "crd/localqueues.kueue.x-k8s.io"); err != nil {
			t.Error(err, out)
		}
	})
	f.cluster.Kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/localqueues.kueue.x-k8s.io")
	f.stop() // what it knew of the cluster is forgotten
	f.start()
	k := &kueue{f: f, sizes: map[string]int32{}, queues: map[string]bool{}}
	ctx, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { k.play(ctx) })
	defer func() { end(); wg.Wait() }()
	id := f.run("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: grows}\nspec:\n  tasks:\n  - {name: a, image: 'busybox:1', command: ['true']}\n" +
		"  - {name: b, image: 'busybox:1', needs: [a], forEach: {count: 60}, command: [sleep, '1']}\n")
	i := f.succeeds(id, 61, 2*time.Minute)
	end()
	wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	t.Logf("Jobs and their sizes: %v", k.sizes)
	most := int32(0)
	for _, n := range k.sizes {
		most += n
	}
	if len(k.wrong) > 0 || !k.queues["batch"] || len(k.sizes) < 2 || most < 4 || most > 20 {
		t.Errorf("%q, queues %v, sizes %v", k.wrong, k.queues, k.sizes)
	}
	if i.Counts.Crashes != 0 || i.Counts.Retries != 0 {
		t.Errorf("%+v", i.Counts)
	}
}

// disks are volumes as a cluster without a provisioner has them.
func (f *farm) disks(names ...string) {
	f.t.Helper()
	dir := f.t.TempDir()
	for at := dir; len(at) > len(os.TempDir()); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o777); err != nil {
			f.t.Fatal(err)
		}
	}
	for _, name := range names {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o700); err != nil {
			f.t.Fatal(err)
		}
		if err := os.Chmod(at, 0o777); err != nil {
			f.t.Fatal(err)
		}
		f.cluster.Apply("apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: " + name + "}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: here, persistentVolumeReclaimPolicy: Retain, hostPath: {path: " + at + "}}\n")
	}
}

// claims are those of a run that are there.
func (f *farm) claims(id string) []string {
	f.t.Helper()
	return strings.Fields(f.cluster.Kubectl("get", "pvc", "-l", "cairn.dev/run="+id, "-o", "name"))
}

func TestClaims(t *testing.T) {
	t.Parallel()
	// As long as there are pods that had it, Kubernetes keeps a claim.
	f := newFarm(t, cluster.Options{Nodes: 1}, func(f *farm) { f.jobs.Linger = time.Second })
	f.disks("one", "two", "three", "four", "five")
	perRun := func(name, strategy, last string) string {
		return `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: ` + name + `}
spec:
  entrypoint: main
  ` + strategy + `
  volumeClaimTemplates: [{metadata: {name: work}, spec: {accessModes: [ReadWriteOnce], storageClassName: here, resources: {requests: {storage: 1Gi}}}}]
  templates:
  - name: main
    steps:
    - - {name: write, template: sh, arguments: {parameters: [{name: do, value: 'test ! -e /claim/x && echo hello > /claim/x'}]}}
    - - {name: read, template: sh, arguments: {parameters: [{name: do, value: '` + last + `'}]}}
  - name: sh
    inputs: {parameters: [{name: do}]}
    container: {image: 'busybox:1', command: [sh, -c, '{{inputs.parameters.do}}'], volumeMounts: [{name: work, mountPath: /claim}]}
`
	}
	gone := func(t *testing.T, id string) {
		t.Helper()
		await(t, "its claim is gone", func() (string, bool) {
			left := f.claims(id)
			return strings.Join(left, " "), len(left) == 0
		})
	}
	t.Run("of a run", func(t *testing.T) {
		id := f.run(perRun("own", "", `test "$(cat /claim/x)" = hello`))
		f.succeeds(id, 2, time.Minute)
		gone(t, id)
	})
	t.Run("of a run, in our words", func(t *testing.T) {
		id := f.run(`apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: ours}
spec:
  pod:
    volumeClaimTemplates: [{metadata: {name: work}, spec: {accessModes: [ReadWriteOnce], storageClassName: here, resources: {requests: {storage: 1Gi}}}}]
  tasks:
  - {name: write, image: 'busybox:1', command: [sh, -c, 'test ! -e /claim/x && echo hello > /claim/x'], volumes: [{name: work, path: /claim}]}
  - {name: read, image: 'busybox:1', command: [sh, -c, 'test "$(cat /claim/x)" = hello'], volumes: [{name: work, path: /claim}], needs: [write]}
`)
		f.succeeds(id, 2, time.Minute)
		gone(t, id)
	})
	t.Run("of a run that fails, for whoever looks into it", func(t *testing.T) {
		id := f.run(perRun("kept", "", "exit 1"))
		if i := f.ends(id, time.Minute); i.Phase != machine.Failed {
			t.Fatalf("%+v", i)
		}
		other := f.run(perRun("gone", "volumeClaimGC: {strategy: OnWorkflowCompletion}", "exit 1"))
		f.ends(other, time.Minute)
		gone(t, other)
		if left := f.claims(id); len(left) != 1 {
			t.Errorf("%q are left of the run that failed", left)
		}
		if err := f.server.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		f.clock.by.Add(int64(2 * time.Minute)) // by when it is seen that the run is not known any more
		gone(t, id)
	})
	t.Run("of others, in several pods", func(t *testing.T) {
		f.cluster.Apply(`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: shared}, spec: {accessModes: [ReadWriteOnce], storageClassName: here, resources: {requests: {storage: 1Gi}}}}`)
		id := f.run(document("several", 6, `isolation: pod, volumes: [{name: s, path: /s, claim: shared}], command: [sh, -c, 'echo > /s/$1; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do test $(ls /s | wc -l) = 6 && exit; sleep 1; done; exit 1', sh, '${{ item }}']`))
		f.succeeds(id, 6, 2*time.Minute)
		if out := f.cluster.Kubectl("get", "pvc", "-o", "name"); !slices.Contains(strings.Fields(out), "persistentvolumeclaim/shared") {
			t.Errorf("it was not ours: %s", out)
		}
	})
}
