package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cairn.dev/cairn/test/cluster/keeper/wire"
)

//go:embed stages.yaml
var stages []byte

// fake is the program that plays the kubelets of fake nodes.
func (c *Cluster) fake() (*wire.Process, error) {
	config := filepath.Join(c.Dir, "stages.yaml")
	if err := os.WriteFile(config, stages, 0o644); err != nil {
		return nil, err
	}
	p := c.process("kwok", alive, "--kubeconfig="+c.Kubeconfig, "--config="+config,
		"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
		"--node-lease-duration-seconds=40", "--cidr=100.64.0.0/10")
	p.Path = c.programs["kwok"]
	return p, nil
}

// makeFakes makes the nodes that kwok then plays.
func (c *Cluster) makeFakes(ctx context.Context) error {
	type object = map[string]any
	// A node may be made ready, as kubelets do; kwok keeps it so.
	now := time.Now().UTC().Format(time.RFC3339)
	condition := func(kind, status, reason string) object {
		return object{"type": kind, "status": status, "reason": reason, "lastHeartbeatTime": now, "lastTransitionTime": now}
	}
	resources := object{"cpu": "1k", "memory": "1Ti", "pods": "1M"}
	status := object{"phase": "Running", "allocatable": resources, "capacity": resources,
		"conditions": []object{condition("Ready", "True", "KubeletReady"), condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
			condition("DiskPressure", "False", "KubeletHasNoDiskPressure"), condition("PIDPressure", "False", "KubeletHasSufficientPID")},
		"nodeInfo": object{"architecture": "amd64", "operatingSystem": "linux", "bootID": "", "machineID": "", "systemUUID": "", "osImage": "",
			"kernelVersion": "fake", "kubeletVersion": "fake", "kubeProxyVersion": "fake", "containerRuntimeVersion": "fake://0"}}
	return each(c.opts.FakeNodes, func(i int) error {
		name := fmt.Sprintf("fake-%d", i)
		node := object{"apiVersion": "v1", "kind": "Node",
			"metadata": object{"name": name,
				"annotations": object{"kwok.x-k8s.io/node": "fake"},
				"labels":      object{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "type": "kwok"}},
			"status": status,
		}
		if c.opts.Nodes > 0 {
			node["spec"] = object{"taints": []object{{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}}}
		}
		return c.poll(ctx, "node "+name, func() error {
			err := c.call(ctx, http.MethodPost, "/api/v1/nodes", node, nil)
			if err != nil && strings.Contains(err.Error(), "AlreadyExists") {
				return nil
			}
			return err
		})
	})
}
