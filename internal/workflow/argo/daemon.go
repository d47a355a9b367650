package argo

import (
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// daemon compiles what makes a program one that others need while it runs. It
// has a pod of its own, where there are pods.
func (c *compiler) daemon(tmpl *document.Node, t *workflow.Template, l *leaf, kind string) {
	d := tmpl.Get("daemon")
	if !d.Bool() {
		return
	}
	if l == nil {
		d.FailKey("daemon is for templates with a container or a script, this one is %s", kind)
		return
	}
	if m := tmpl.Get("memoize"); m != nil {
		m.FailKey("a daemon cannot be remembered: who needs it needs it running")
	}
	t.Daemon = true
	l.base.Daemon, l.base.Isolation = true, "pod"
	l.base.Ready = c.probe(tmpl.Get(kind))
}

// probe compiles a container's readinessProbe. The worker asks it, beside the
// kubelet where there is one: it is who says that the daemon is ready.
func (c *compiler) probe(container *document.Node) *task.Probe {
	n := container.Get("readinessProbe")
	if n == nil {
		return nil
	}
	c.check(n, "probe")
	for _, k := range []string{"exec", "tcpSocket", "httpGet"} {
		if strings.Contains(n.Get(k).JSON(), "{{") {
			n.Get(k).Fail("tags are not supported in the readinessProbe of a daemon: write it down")
			return nil
		}
	}
	seconds := func(key string) time.Duration { // Kubernetes asks each 10 s; nobody waits longer than they have to
		if x := n.Get(key); x != nil {
			return time.Duration(x.Int(0, 1<<31)) * time.Second
		}
		return 0
	}
	p := &task.Probe{Delay: seconds("initialDelaySeconds"), Period: seconds("periodSeconds"), Timeout: seconds("timeoutSeconds")}
	if x := n.Get("successThreshold"); x != nil {
		p.Times = int(x.Int(1, 1000))
	}
	how := 0
	if x := n.Get("exec"); x != nil {
		how++
		c.check(x, "exec")
		if p.Exec = x.Get("command").Texts(); len(p.Exec) == 0 {
			x.Fail("there is no command")
		}
		if !c.opts.Cluster {
			x.FailKey("exec runs a program beside the daemon's: it needs Kubernetes; or say httpGet or tcpSocket")
		}
	}
	if x := n.Get("tcpSocket"); x != nil {
		how++
		c.check(x, "tcpSocket")
		p.Host, p.Port = x.Get("host").Text(), port(container, x)
	}
	if x := n.Get("httpGet"); x != nil {
		how++
		c.check(x, "httpGet")
		p.Host, p.Port, p.Path, p.HTTP = x.Get("host").Text(), port(container, x), x.Get("path").Text(), "http"
		switch s := x.Get("scheme"); s.Text() {
		case "", "HTTP":
		case "HTTPS":
			p.HTTP = "https"
		default:
			s.Fail("%.40q: this has to be HTTP or HTTPS", s.Text())
		}
		for _, h := range x.Get("httpHeaders").List() {
			c.check(h, "header")
			if p.Headers == nil {
				p.Headers = map[string]string{}
			}
			p.Headers[h.Get("name").Text()] = h.Get("value").Text()
		}
	}
	if how != 1 {
		n.Fail("a probe is one of exec, httpGet and tcpSocket")
	}
	return p
}

// port is one by its number, or by the name that the container gives it.
func port(container, at *document.Node) int {
	n := at.Get("port")
	for _, p := range container.Get("ports").List() {
		if name := p.Get("name"); name != nil && name.Text() == n.Text() {
			n = p.Get("containerPort")
		}
	}
	v, err := strconv.Atoi(n.Text())
	if err != nil || v < 1 || v > 65535 {
		at.Fail("port %.40q is no number from 1 to 65535, and no name of one of the container's ports", n.Text())
	}
	return v
}
