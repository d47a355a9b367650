package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// features is what some clusters have and others have not.
type features interface {
	// imageVolumes says why images cannot be mounted as volumes; "" if they can.
	imageVolumes(ctx context.Context) (lacks string, err error)
	// kueue says whether Kueue is installed.
	kueue(ctx context.Context) (bool, error)
}

// answer is one that is believed for a time.
type answer struct {
	yes   bool
	until time.Duration
}

// How long answers are believed: nodes come and go, and what cannot be known is
// asked again sooner.
const (
	volumesFor  = 10 * time.Minute
	queueFor    = time.Minute
	distrustFor = time.Hour // image volumes, once a pod did not start with one
)

// mounts says whether pods of the next Job have the worker's image mounted.
func (c *Controller) mounts(ctx context.Context) bool {
	if c.cfg.ImageVolume || !c.cfg.FindImageVolume {
		return c.cfg.ImageVolume
	}
	c.mu.Lock()
	a, now := c.volumes, c.d.Clock.Mono()
	c.mu.Unlock()
	if now < a.until {
		return a.yes
	}
	lacks, err := c.api.imageVolumes(ctx)
	if err != nil {
		lacks = err.Error()
	}
	if yes := lacks == ""; yes != a.yes || a.until == 0 {
		c.log.Info("the image of the worker", "mounted", yes, "why", lacks)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volumes = answer{lacks == "", now + volumesFor}
	if err != nil {
		c.volumes.until = now + queueFor
	}
	return c.volumes.yes
}

// doubtful says whether it may be for the mounted image that a pod does not
// start: runtimes that know no such volumes make no container, or one without a
// worker in it. Then it is tried without, before the run hears of it.
func (c *Controller) doubtful(j *job, p *pod) bool {
	return j.mounts && !c.cfg.ImageVolume && p.own && p.job == j.name &&
		(strings.Contains(p.trouble, "CreateContainerError") || strings.Contains(p.trouble, "RunContainerError"))
}

// unmounted notes that a pod did not start that had an image mounted, which is
// the doubtful part of it; the lock is held.
func (c *Controller) unmounted() {
	c.volumes = answer{false, c.d.Clock.Mono() + distrustFor}
}

// queued says whether Jobs are given to Kueue: a queue is named, and somebody is
// there to start what waits in it.
func (c *Controller) queued(ctx context.Context) (bool, error) {
	if c.cfg.Queue == "" {
		return false, nil
	}
	c.mu.Lock()
	a, now := c.queue, c.d.Clock.Mono()
	c.mu.Unlock()
	if now < a.until {
		return a.yes, nil
	}
	yes, err := c.api.kueue(ctx)
	if err != nil {
		return false, fmt.Errorf("ask whether Kueue is installed: %w", err)
	}
	if !yes && (a.yes || a.until == 0) {
		c.log.Warn("Kueue is not installed: Jobs are not given to its queue", "queue", c.cfg.Queue)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = answer{yes, now + queueFor}
	return yes, nil
}

// imageVolumes implements [features].
func (c *cluster) imageVolumes(ctx context.Context) (string, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	b, err := c.core.Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return "", fmt.Errorf("ask for the version of the API server: %w", err)
	}
	var v struct{ Major, Minor string }
	if err := json.Unmarshal(b, &v); err != nil {
		return "", fmt.Errorf("read the version of the API server: %w", err)
	}
	if !atLeast(v.Major+"."+v.Minor, 1, 35) {
		return fmt.Sprintf("the API server is %s.%s, and image volumes are on since 1.35", v.Major, v.Minor), nil
	}
	for next := ""; ; {
		var l corev1.NodeList
		o := metav1.ListOptions{Limit: 500, Continue: next}
		if err := c.core.Get().Resource("nodes").VersionedParams(&o, c.codec).Do(ctx).Into(&l); apierrors.IsForbidden(err) {
			return "nodes may not be listed, which cairn install gives the right to", nil
		} else if err != nil {
			return "", fmt.Errorf("list nodes: %w", err)
		}
		for i := range l.Items {
			if why := lacking(&l.Items[i]); why != "" {
				return why, nil
			}
		}
		if next = l.Continue; next == "" {
			return "", nil
		}
	}
}

// lacking says why a node cannot mount images; "" if it can, or gets no pods.
func lacking(n *corev1.Node) string {
	info := &n.Status.NodeInfo
	if n.Spec.Unschedulable || info.OperatingSystem == "windows" {
		return ""
	}
	if !atLeast(info.KubeletVersion, 1, 35) {
		return fmt.Sprintf("node %s has the kubelet %s, and image volumes are on since 1.35", n.Name, info.KubeletVersion)
	}
	runtime, version, _ := strings.Cut(info.ContainerRuntimeVersion, "://")
	if runtime == "containerd" && atLeast(version, 2, 1) || runtime == "cri-o" && atLeast(version, 1, 33) {
		return ""
	}
	return fmt.Sprintf("node %s has %s, and image volumes need containerd 2.1 or CRI-O 1.33", n.Name, info.ContainerRuntimeVersion)
}

// atLeast compares the first two numbers of a version. What is none is older
// than anything.
func atLeast(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	second := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))] // some clouds say "35+"
	x, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	y, err := strconv.Atoi(second)
	return err == nil && (x > major || x == major && y >= minor)
}

// kueue implements [features].
func (c *cluster) kueue(ctx context.Context) (bool, error) {
	ctx, end := context.WithTimeout(ctx, callTimeout)
	defer end()
	err := c.core.Get().AbsPath("/apis/kueue.x-k8s.io").Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
