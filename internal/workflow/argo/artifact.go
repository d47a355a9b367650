package argo

import (
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// sourced is an artifact that lives elsewhere, or in the document.
type sourced struct {
	kind, secret, archive                     string
	url, revision, key, endpoint, region, raw workflow.Expr
	headers                                   map[string]workflow.Expr
	insecure                                  bool // http and not https
}

func (a *sourced) String() string {
	for _, e := range []workflow.Expr{a.url, a.key} {
		if e != nil {
			return a.kind + " " + e.String()
		}
	}
	return a.kind
}

// Eval implements [workflow.Expr].
func (a *sourced) Eval(s workflow.Scope) (workflow.Value, error) {
	src := &task.Source{Kind: a.kind, Secret: a.secret, Archive: a.archive}
	for _, f := range []struct {
		to   *string
		from workflow.Expr
	}{{&src.URL, a.url}, {&src.Revision, a.revision}, {&src.Key, a.key}, {&src.Endpoint, a.endpoint}, {&src.Region, a.region}, {&src.Raw, a.raw}} {
		if f.from == nil {
			continue
		}
		v, err := f.from.Eval(s)
		if err != nil {
			return nil, err
		}
		if *f.to, err = workflow.Text(v); err != nil {
			return nil, err
		}
	}
	for k, e := range a.headers {
		v, err := e.Eval(s)
		if err != nil {
			return nil, err
		}
		if src.Headers == nil {
			src.Headers = map[string]string{}
		}
		src.Headers[k] = fmt.Sprint(v)
	}
	src.Endpoint = endpoint(src.Endpoint, a.insecure)
	return &workflow.File{Source: src, Folder: a.kind == "git"}, nil
}

// endpoint is a host of Argo's as an address.
func endpoint(host string, insecure bool) string {
	switch {
	case host == "":
		return ""
	case insecure:
		return "http://" + host
	}
	return "https://" + host
}

// secret is the name of a secret, of which the server has its own.
func (c *compiler) secret(n *document.Node) string {
	c.check(n, "secretRef")
	return n.Get("name").Text()
}

// source compiles where an artifact comes from; nil when the document does not
// say.
func (c *compiler) source(n *document.Node, p *place) workflow.Expr {
	c.check(n, "artifact")
	// Without a word Argo looks whether it is a tar, which it makes of outputs.
	archive := map[string]string{"": "tar", "tar": "tar", "zip": "zip"}[c.archive(n.Get("archive"))]
	if sub := n.Get("subPath"); sub != nil && n.Get("from") == nil && n.Get("fromExpression") == nil {
		sub.FailKey("subPath stands beside from or fromExpression: name the file itself in the source")
	}
	switch {
	case n.Get("from") != nil:
		return c.part(n, c.from(n.Get("from"), p), p)
	case n.Get("fromExpression") != nil:
		return c.part(n, c.condition(n.Get("fromExpression"), p), p)
	case n.Get("raw") != nil:
		r := n.Get("raw")
		c.check(r, "raw")
		return &sourced{kind: "raw", raw: c.textOf(r.Get("data"), p)}
	case n.Get("http") != nil:
		h := n.Get("http")
		c.check(h, "httpSource")
		a := &sourced{kind: "http", archive: archive, url: c.textOf(h.Get("url"), p), headers: c.headers(h.Get("headers"), p)}
		if a.url == nil {
			h.Fail("there is no url")
		}
		return a
	case n.Get("git") != nil:
		g := n.Get("git")
		c.check(g, "git")
		a := &sourced{kind: "git", url: c.textOf(g.Get("repo"), p), revision: c.textOf(g.Get("revision"), p), secret: c.secret(g.Get("passwordSecret"))}
		if a.revision == nil {
			a.revision = c.textOf(g.Get("branch"), p)
		}
		if a.url == nil {
			g.Fail("there is no repo")
		}
		if k, ok := a.url.(workflow.Constant); ok && !strings.HasPrefix(k.String(), "http") {
			g.Get("repo").Fail("%.80q: repositories are read over https", k.String())
		}
		return a
	case n.Get("s3") != nil:
		s := n.Get("s3")
		c.check(s, "s3")
		if s.Get("bucket") == nil {
			s.Fail("there is no bucket: the server's own store keeps artifacts by their content, hand them on with from")
			return nil
		}
		return &sourced{kind: "s3", archive: archive, url: c.textOf(s.Get("bucket"), p), key: c.textOf(s.Get("key"), p), secret: c.s3Secret(s),
			endpoint: c.textOf(s.Get("endpoint"), p), region: c.textOf(s.Get("region"), p), insecure: s.Get("insecure").Bool()}
	}
	return nil
}

func (c *compiler) s3Secret(s *document.Node) string {
	c.secret(s.Get("secretKeySecret"))
	return c.secret(s.Get("accessKeySecret"))
}

// part is the whole, or what subPath names in it.
func (c *compiler) part(n *document.Node, whole workflow.Expr, p *place) workflow.Expr {
	at := c.textOf(n.Get("subPath"), p)
	if at == nil || whole == nil {
		return whole
	}
	return &part{whole: whole, at: at}
}

// from compiles the name of another artifact.
func (c *compiler) from(n *document.Node, p *place) workflow.Expr {
	e, err := p.value(n.Text())
	if err != nil {
		n.Fail("%v", err)
		return nil
	}
	switch x := e.(type) {
	case ref:
		for _, part := range x.path {
			if part == "artifacts" {
				return e
			}
		}
	case *expression:
		return e
	}
	n.Fail("%.80q names no artifact: write such as {{steps.a.outputs.artifacts.b}}", n.Text())
	return nil
}

func (c *compiler) headers(n *document.Node, p *place) map[string]workflow.Expr {
	var out map[string]workflow.Expr
	for _, h := range n.List() {
		c.check(h, "header")
		if out == nil {
			out = map[string]workflow.Expr{}
		}
		out[h.Get("name").Text()] = c.textOf(h.Get("value"), p)
		if h.Get("value") == nil {
			out[h.Get("name").Text()] = workflow.Constant{Value: ""}
		}
	}
	return out
}

// destination is where else an output goes; nil for the server's store.
func (c *compiler) destination(n *document.Node) *task.Source {
	for _, k := range []string{"git", "raw"} {
		if x := n.Get(k); x != nil {
			x.FailKey("an output cannot be written there")
		}
	}
	plain := func(n *document.Node) string {
		if strings.Contains(n.Text(), "{{") {
			n.Fail("tags are not supported where an output goes: its place has to be known before")
		}
		return n.Text()
	}
	if h := n.Get("http"); h != nil {
		c.check(h, "httpSource")
		return &task.Source{Kind: "http", URL: plain(h.Get("url"))}
	}
	if s := n.Get("s3"); s != nil {
		c.check(s, "s3")
		if s.Get("bucket") == nil {
			return nil // a key alone is of the store that is the default: ours has no keys
		}
		return &task.Source{Kind: "s3", URL: plain(s.Get("bucket")), Key: plain(s.Get("key")), Secret: c.s3Secret(s),
			Endpoint: endpoint(plain(s.Get("endpoint")), s.Get("insecure").Bool()), Region: plain(s.Get("region"))}
	}
	return nil
}
