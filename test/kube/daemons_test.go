package kube_test

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/test/cluster"
)

// web is a template of Argo's: a server that is ready a while after its start.
const web = `
  - name: web
    daemon: true
    container:
      image: busybox:1
      command: [sh, -c, 'mkdir -p /tmp/www; sleep 1; hostname > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
      readinessProbe: {PROBE, periodSeconds: 1}
  - name: ask
    inputs: {parameters: [{name: at}]}
    container: {image: 'busybox:1', command: [wget, -qO-, 'http://{{inputs.parameters.at}}:8080/']}
`

func daemon(name, probe, steps string) string {
	return "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: " + name + "}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    steps:\n" + steps + strings.Replace(web, "PROBE", probe, 1)
}

const askWeb = "    - - {name: ask, template: ask, arguments: {parameters: [{name: at, value: '{{steps.web.ip}}'}]}}\n"

// A pod that others find by its address, for as long as they need it.
func TestDaemons(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, nil)
	for name, probe := range map[string]string{"asked by a program": "exec: {command: [test, -e, /tmp/www/index.html]}", "asked by a request": "httpGet: {port: 8080, path: /}"} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			id := f.run(daemon("daemon", probe, "    - - {name: web, template: web}\n"+askWeb))
			f.succeeds(id, 2, time.Minute)
			t.Logf("ended after %v", time.Since(begin).Round(10*time.Millisecond))
			f.mu.Lock()
			said := strings.Join(f.lines[id], "")
			f.mu.Unlock()
			if !strings.Contains(said, "cairn-") { // the name of the daemon's pod
				t.Errorf("who asked printed %q", said)
			}
			await(t, "its pods have ended well", func() (string, bool) {
				got := f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[*].status.phase}")
				return got, !strings.Contains(got, "Running") && !strings.Contains(got, "Failed")
			})
		})
	}
	t.Run("its pod is lost", func(t *testing.T) {
		id := f.run(daemon("lost", "tcpSocket: {port: 8080}", "    - - {name: web, template: web}\n    - - {name: gate, template: gate}\n"+askWeb) + "  - name: gate\n    suspend: {}\n")
		address := func(other string) (at string) {
			await(t, "the daemon serves at another address than "+other, func() (string, bool) {
				steps, _, err := f.server.Nodes(t.Context(), id, "1", "", 10, machine.Filter{})
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range steps {
					if n.Name == "web" {
						at = n.Address
					}
				}
				return at, at != "" && at != other
			})
			return at
		}
		first := address("")
		if got := f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[*].status.podIP}"); got != first {
			t.Errorf("it serves at %s, its pod has %s", first, got)
		}
		f.cluster.Kubectl("delete", "pods", "-l", "cairn.dev/run="+id, "--grace-period=0", "--force", "--wait=false")
		t.Logf("first at %s, then at %s", first, address(first))
		await(t, "the gate opens", func() (string, bool) {
			steps, _, err := f.server.Nodes(t.Context(), id, "1", "", 10, machine.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range steps {
				if n.Name == "gate" && n.Waits != "" {
					err := f.server.Resume(t.Context(), id, n.ID, nil, false, "")
					return "", err == nil
				}
			}
			return "no gate", false
		})
		i := f.succeeds(id, 2, time.Minute)
		if i.Counts.Crashes == 0 {
			t.Errorf("nothing was lost: %+v", i.Counts)
		}
	})
	t.Run("its run is canceled", func(t *testing.T) {
		id := f.run(daemon("canceled", "tcpSocket: {port: 8080}", "    - - {name: web, template: web}\n    - - {name: gate, template: gate}\n") + "  - name: gate\n    suspend: {}\n")
		await(t, "the daemon serves", func() (string, bool) {
			i, err := f.server.Get(t.Context(), id)
			return "", err == nil && i.Counts.Serving == 1
		})
		if err := f.server.Cancel(t.Context(), id, "ann", false); err != nil {
			t.Fatal(err)
		}
		if i := f.ends(id, time.Minute); i.Phase != machine.Canceled {
			t.Errorf("it is %v", i.Phase)
		}
	})
}
