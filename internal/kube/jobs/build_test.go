package jobs

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/task"
)

var update = flag.Bool("update", false, "write the golden files")

type object = map[string]any
type list = []any

// plan is the least, for a task.
func plan(t task.Task, edit ...func(*Plan)) Plan {
	if t.Image == "" {
		t.Image = "registry.example/app:1"
	}
	s := dispatch.ShapeOf(&t)
	p := Plan{Name: "cairn-r1-c1-1", Cluster: "prod", ID: "5e12e12a01", Demand: dispatch.Demand{Run: "r1", Namespace: "data", Class: "c1", Shape: s}, Size: 3,
		Server: "http://cairn.cairn.svc:5080", Token: "cairn_pod_x.y", Key: "cairn-key-0", Worker: "registry.example/cairn-worker:1", Linger: 60}
	for _, f := range edit {
		f(&p)
	}
	return p
}

// everything is all that a task may say of its pod.
func everything() object {
	return object{
		"nodeSelector": object{"disk": "ssd"}, "tolerations": list{object{"key": "gpu", "operator": "Exists"}}, "serviceAccountName": "runner", "podPriorityClassName": "low",
		"imagePullSecrets": list{object{"name": "mine"}}, "securityContext": object{"fsGroup": 2000.0}, "podMetadata": object{"labels": object{"team": "data"}},
		"affinity":             object{"nodeAffinity": object{"requiredDuringSchedulingIgnoredDuringExecution": object{"nodeSelectorTerms": list{object{"matchExpressions": list{object{"key": "a", "operator": "Exists"}}}}}}},
		"volumeClaimTemplates": list{object{"metadata": object{"name": "work"}, "spec": object{"accessModes": list{"ReadWriteOnce"}, "resources": object{"requests": object{"storage": "1Gi"}}}}},
		"volumes":              list{object{"name": "keys", "secret": object{"secretName": "keys"}}, object{"name": "claim", "persistentVolumeClaim": object{"claimName": "shared"}}},
		"container": object{
			"env":       list{object{"name": "PASSWORD", "valueFrom": object{"secretKeyRef": object{"name": "keys", "key": "p"}}}},
			"envFrom":   list{object{"configMapRef": object{"name": "settings"}}},
			"resources": object{"limits": object{"memory": "1Gi", "cpu": 2.0}},
			"volumeMounts": list{object{"name": "keys", "mountPath": "/keys", "readOnly": true}, object{"name": "claim", "mountPath": "/shared", "subPath": "a"},
				object{"name": "work", "mountPath": "/bench"}},
		},
		"sidecars":     list{object{"name": "db", "image": "redis:7"}},
		"podSpecPatch": "terminationGracePeriodSeconds: 5\ncontainers:\n- name: main\n  env:\n  - {name: EXTRA, value: $(x)}\n",
	}
}

func TestBuild(t *testing.T) {
	for name, p := range map[string]Plan{
		"plain":      plan(task.Task{Command: []string{"true"}}),
		"ca":         plan(task.Task{Command: []string{"true"}}, func(p *Plan) { p.Server, p.CA = "https://cairn.cairn.svc:5080", "-----BEGIN CERTIFICATE-----\n" }),
		"entrypoint": plan(task.Task{CPU: 250, Memory: 64 << 20}, func(p *Plan) { p.Image = Image{Entrypoint: []string{"/run", "$(X)"}, Command: []string{"--all"}} }),
		"restricted": plan(task.Task{Command: []string{"true"}}, func(p *Plan) { p.Restricted = true }),
		"single":     plan(task.Task{Command: []string{"true"}, Isolation: "pod", User: "7:8"}),
		"requests": plan(task.Task{Resource: &task.Resource{Action: "get"}, Pod: object{"serviceAccountName": "maker", "automountServiceAccountToken": false, "nodeSelector": object{"disk": "ssd"}}},
			func(p *Plan) { p.ImageVolume, p.Restricted = true, true }),
		"daemon": plan(task.Task{Command: []string{"serve"}, Daemon: true}),
		"set": plan(task.Task{Command: []string{"true"}, Isolation: "pod", Volumes: []task.Volume{{Name: "work", Path: "/both"}}, Pod: object{
			"volumes": list{object{"name": "work", "emptyDir": object{}}},
			"containerSet": object{"containers": list{
				object{"name": "a", "image": "registry.example/a:1", "args": list{"$(X)"}, "volumeMounts": list{object{"name": "work", "mountPath": "/both"}}},
				object{"name": "b", "image": "registry.example/b:1", "command": list{"b"}, "env": list{object{"name": "A", "value": "1"}}}}}}},
			func(p *Plan) {
				p.Restricted, p.Members = true, map[string]Image{"registry.example/a:1": {Reference: "registry.example/a@sha256:0", Entrypoint: []string{"/a"}, User: "7"}}
			}),
		"mirror": plan(task.Task{Command: []string{"true"}, Volumes: []task.Volume{{Name: "work", Path: "/both"}}, Pod: object{
			"sidecars":       list{object{"name": "s", "image": "s", "mirrorVolumeMounts": true}},
			"initContainers": list{object{"name": "i", "image": "i", "mirrorVolumeMounts": false}}}}),
		"outside": plan(task.Task{Command: []string{"true"}, Outputs: []task.Output{{Name: "o", Path: "/out/o"}}}),
		"volumes": plan(task.Task{Command: []string{"true"}, Volumes: []task.Volume{{Name: "new", Path: "/new"}, {Name: "kept", Path: "/kept", Claim: "shared"}, {Name: "seen", Path: "/seen", Claim: "other", ReadOnly: true}},
			Outputs: []task.Output{{Name: "o", Path: "/new/o"}}}),
		"everything": plan(task.Task{Command: []string{"true"}, Pod: everything()}, func(p *Plan) {
			p.ImageVolume, p.Queue, p.PullSecrets = true, "team", []string{"ours"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			j, err := Build(p)
			if err != nil {
				t.Fatal(err)
			}
			all := []any{j}
			claims, err := Claims(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range claims {
				all = append(all, c)
			}
			got, err := json.MarshalIndent(all, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("not as in %s (-update writes it):\n%s", golden, got)
			}
		})
	}
}

// What a task may not say of its pod, and how it is told.
func TestBuildRefuses(t *testing.T) {
	for want, x := range map[string]task.Task{
		`unknown field "nodeSelektor"`:                               {Pod: object{"nodeSelektor": object{}}},
		"containers cannot be set: say container and sidecars":       {Pod: object{"containers": list{}}},
		"nodeName cannot be set: say nodeSelector or affinity":       {Pod: object{"nodeName": "n"}},
		"restartPolicy cannot be set":                                {Pod: object{"restartPolicy": "Always"}},
		`container: json: unknown field "mirrorVolumeMounts"`:        {Pod: object{"container": object{"mirrorVolumeMounts": true}}},
		"container main: the name is taken":                          {Pod: object{"sidecars": list{object{"name": "main"}}}},
		"container cairn: the name is taken":                         {Pod: object{"initContainers": list{object{"name": "cairn"}}}},
		"volume cairn-bin: names that begin with cairn- are taken":   {Pod: object{"volumes": list{object{"name": "cairn-bin"}}}},
		"label cairn.dev/run: labels of cairn.dev are taken":         {Pod: object{"metadata": object{"labels": object{"cairn.dev/run": "x"}}}},
		"podSpecPatch: yaml":                                         {Pod: object{"podSpecPatch": "a: ["}},
		`podSpecPatch: json: unknown field "x"`:                      {Pod: object{"podSpecPatch": "x: 1"}},
		`volume "v": "data" is no place to mount it`:                 {Volumes: []task.Volume{{Name: "v", Path: "data"}}},
		`volume "v": "/" is no place to mount it`:                    {Volumes: []task.Volume{{Name: "v", Path: "/"}}},
		"lets nobody run as root, so that names cannot be looked up": {User: "nobody"},
	} {
		x.Command = []string{"true"}
		_, err := Build(plan(x, func(p *Plan) { p.Restricted = true }))
		if !errors.Is(err, ErrPod) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A patch may not take the worker out of the pod without anybody noticing.
func TestMerge(t *testing.T) {
	base := object{"a": 1.0, "m": object{"x": 1.0, "y": 2.0}, "containers": list{object{"name": "main", "image": "i", "env": list{object{"name": "A", "value": "1"}}}, object{"name": "b"}}, "tolerations": list{object{"key": "old"}}}
	patch := object{"a": nil, "m": object{"y": 3.0, "z": object{"q": nil, "r": 1.0}}, "tolerations": list{object{"key": "new"}},
		"containers": list{object{"name": "main", "env": list{object{"name": "B", "value": "2"}, object{"name": "A", "value": "9"}}}, object{"name": "b", "$patch": "delete"}, object{"name": "c"}}}
	got, err := json.Marshal(merge(base, patch))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"containers":[{"env":[{"name":"A","value":"9"},{"name":"B","value":"2"}],"image":"i","name":"main"},{"name":"c"}],"m":{"x":1,"y":3,"z":{"r":1}},"tolerations":[{"key":"new"}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if b, _ := json.Marshal(base["m"]); string(b) != `{"x":1,"y":2}` {
		t.Errorf("the base was changed: %s", b)
	}
}

func FuzzPod(f *testing.F) {
	b, err := json.Marshal(everything())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Add(`{"podSpecPatch": "containers: [{$patch: replace}]"}`)
	f.Add(`{"podSpecPatch": "containers: [1]", "volumes": [null]}`)
	f.Fuzz(func(t *testing.T, s string) {
		var pod object
		if json.Unmarshal([]byte(s), &pod) != nil {
			return
		}
		p := plan(task.Task{Command: []string{"true"}, Pod: pod})
		j, err := Build(p)
		if err != nil {
			if !errors.Is(err, ErrPod) {
				t.Errorf("%v is not the task's fault", err)
			}
			return
		}
		if j.Labels[LabelRun] != "r1" || j.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever && !strings.Contains(s, "restartPolicy") {
			t.Errorf("%+v", j)
		}
	})
}

func TestIndexes(t *testing.T) {
	for s, want := range map[string]int32{"": 0, "0": 1, "0-2": 3, "0-2,5,7-8": 6, "x": 0, "1-": 0, "5-1": 0} {
		if got := indexes(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
