package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cairn.dev/cairn/test/parts"
)

// field is everything that runs side by side.
type field struct {
	dir          string
	cairn        *server
	distribution *server
	olareg       *server
	nginx        *server
	bare         *server
	cargo        *cargo
	versions     []string
}

// registries are those that are filled by pushing.
func (f *field) registries() []*server { return []*server{f.cairn, f.distribution, f.olareg} }

func (f *field) stop() {
	for _, s := range []*server{f.cairn, f.distribution, f.olareg, f.nginx, f.bare} {
		if s != nil {
			s.stop()
		}
	}
}

// startField starts every contender on loopback and fills the registries.
func startField(ctx context.Context, o options) (f *field, err error) {
	f = &field{dir: o.dir}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	for _, begin := range []func(context.Context, options) error{f.startCairn, f.startDistribution, f.startOlareg} {
		if err := begin(ctx, o); err != nil {
			return nil, err
		}
	}
	f.cargo = makeCargo()
	for _, s := range f.registries() {
		say("filling " + s.name)
		if err := f.cargo.push(ctx, s.addr); err != nil {
			return nil, fmt.Errorf("fill %s: %w", s.name, err)
		}
	}
	if err := f.startBare(ctx); err != nil {
		return nil, err
	}
	return f, f.startNginx(ctx, o)
}

func (f *field) startCairn(ctx context.Context, o options) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	say("starting cairn")
	f.cairn, err = start(ctx, o.dir, "cairn", addr, "/v2/", nil, o.cairn, "serve", "--data", filepath.Join(o.dir, "cairn-data"), "--listen", addr, "--open")
	return err
}

func (f *field) startDistribution(ctx context.Context, o options) error {
	binary, err := part(ctx, "registry", f)
	if err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	config := filepath.Join(o.dir, "distribution.yml")
	// Its fastest usual set-up: local files, descriptors cached in memory, no
	// access log.
	if err := os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %s}
  cache: {blobdescriptor: inmemory}
  delete: {enabled: true}
http: {addr: %s}
`, filepath.Join(o.dir, "distribution-data"), addr), 0o644); err != nil {
		return fmt.Errorf("configure distribution: %w", err)
	}
	say("starting distribution")
	f.distribution, err = start(ctx, o.dir, "distribution", addr, "/v2/", []string{"OTEL_TRACES_EXPORTER=none"}, binary, "serve", config)
	return err
}

func (f *field) startOlareg(ctx context.Context, o options) error {
	binary, err := part(ctx, "olareg", f)
	if err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	data := filepath.Join(o.dir, "olareg-data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("start olareg: %w", err)
	}
	host, port, _ := strings.Cut(addr, ":")
	say("starting olareg")
	f.olareg, err = start(ctx, o.dir, "olareg", addr, "/v2/", nil, binary, "serve", "--addr", host, "--port", port, "--dir", data, "--store-type", "dir", "--api-delete", "--api-blob-delete", "--verbosity", "error")
	return err
}

// startBare starts a handler of net/http that returns the manifest's bytes and
// does nothing else: what any Go registry could reach at most.
func (f *field) startBare(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	file := filepath.Join(f.dir, "manifest.json")
	if err := os.WriteFile(file, f.cargo.manifest, 0o644); err != nil {
		return fmt.Errorf("start the bare handler: %w", err)
	}
	f.bare, err = start(ctx, f.dir, "bare", addr, "/", nil, self, "child-bare", addr, file)
	return err
}

// startNginx serves the same files by a web server, under the same paths.
func (f *field) startNginx(ctx context.Context, o options) error {
	if err := parts.Install(ctx, os.Stderr, "nginx-light"); err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	root := filepath.Join(o.dir, "nginx")
	for name, b := range map[string][]byte{
		"blobs/" + f.cargo.layerDigest: f.cargo.layer,
		"manifests/latest":             f.cargo.manifest,
	} {
		file := filepath.Join(root, "www", "v2", repository, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, b, 0o644)); err != nil {
			return fmt.Errorf("lay out files for nginx: %w", err)
		}
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // or its workers could not read a private folder
	}
	config := filepath.Join(root, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `%s
worker_processes auto;
daemon off;
pid %s/nginx.pid;
error_log %s/error.log;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=1000;
  client_body_temp_path %s/tmp-body;
  proxy_temp_path %s/tmp-proxy;
  fastcgi_temp_path %s/tmp-fcgi;
  uwsgi_temp_path %s/tmp-uwsgi;
  scgi_temp_path %s/tmp-scgi;
  server { listen %s; root %s/www; }
}
`, user, root, root, root, root, root, root, root, addr, root), 0o644); err != nil {
		return fmt.Errorf("configure nginx: %w", err)
	}
	say("starting nginx")
	f.nginx, err = start(ctx, o.dir, "nginx", addr, "/", nil, "nginx", "-p", root, "-c", config)
	return err
}

// part builds a peer and notes its version for the report.
func part(ctx context.Context, name string, f *field) (string, error) {
	for _, p := range parts.Table() {
		if p.Name == name {
			f.versions = append(f.versions, p.Package+" "+p.Version)
		}
	}
	return parts.Build(ctx, name, os.Stderr)
}
