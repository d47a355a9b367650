package images

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"cairn.dev/cairn/test/parts"
)

// kind is how an image is made.
type kind struct {
	refs  []string
	index bool
	build func(ctx context.Context, progress io.Writer) (v1.Image, error)
}

// catalog is all images, the most used first.
func catalog() []kind {
	return []kind{
		{[]string{"library/busybox:latest", "library/busybox:1"}, false, busybox(nil)},
		{[]string{"library/alpine:3.23", "library/alpine:latest"}, true, alpine},
		{[]string{"library/python:alpine3.23", "library/python:alpine", "library/python:latest"}, true, python},
		{[]string{"argoproj/argosay:v2", "argoproj/argosay:latest"}, false, argosay},
		{[]string{"library/nginx:1.13", "library/nginx:latest"}, true, nginx},
		{[]string{"curlimages/curl:latest"}, false, curl},
		{[]string{"docker/whalesay:latest"}, false, whalesay},
		{[]string{"stedolan/jq:latest"}, false, jq},
		{[]string{"library/debian:latest", "library/debian:9.1", "library/debian:8.9", "library/ubuntu:17.10", "library/alpine:3.6"}, false, release},
	}
}

// shell is busybox under all its names, and what every program expects.
func shell(ctx context.Context, progress io.Writer) (files, error) {
	root, err := parts.Unpack(ctx, "busybox-static", progress)
	if err != nil {
		return nil, err
	}
	f := files{
		"tmp":        dir(0o777 | fs.ModeSticky),
		"root":       dir(0o700),
		"etc/passwd": text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		"etc/group":  text("root:x:0:\nnobody:x:65534:\n"),
		"usr/bin":    dir(0o755),
	}
	if err := f.take(root, "bin/busybox"); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(root, "bin", "busybox"), "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its names: %w", err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if name != "busybox" {
			f["bin/"+name] = link("busybox")
		}
	}
	return f, nil
}

// busybox is the shell, and a second layer where there are more files.
func busybox(more files) func(ctx context.Context, progress io.Writer) (v1.Image, error) {
	return func(ctx context.Context, progress io.Writer) (v1.Image, error) {
		f, err := shell(ctx, progress)
		if err != nil {
			return nil, err
		}
		img, err := add(scratch(), f)
		if err != nil {
			return nil, err
		}
		if len(more) > 0 {
			if img, err = add(img, more); err != nil {
				return nil, err
			}
		}
		return configure(img, nil, []string{"sh"})
	}
}

func alpine(ctx context.Context, progress io.Writer) (v1.Image, error) {
	return busybox(files{
		"etc/alpine-release": text("3.23.0\n"),
		"etc/os-release":     text("NAME=\"busybox in place of Alpine, for tests\"\nID=alpine\nVERSION_ID=3.23.0\n"),
	})(ctx, progress)
}

// release stands for all distributions of which examples ask only the name.
func release(ctx context.Context, progress io.Writer) (v1.Image, error) {
	return busybox(files{"etc/os-release": text("NAME=\"busybox in place of a distribution, for tests\"\n")})(ctx, progress)
}

// libc is what a dynamic program of Debian needs at least.
var libc = debian{"libc6", []string{"lib*/ld-linux*", "lib/*/ld-linux*", "lib/*/libc.so.*", "lib/*/libm.so.*", "lib/*/libdl.so.*", "lib/*/libpthread.so.*"}}

// debian is files of a package of Debian.
type debian struct {
	name  string
	files []string
}

// onAlpine adds files of packages, and others, to the stand-in for alpine.
func onAlpine(ctx context.Context, progress io.Writer, f files, packages ...debian) (v1.Image, error) {
	for _, p := range packages {
		root, err := parts.Unpack(ctx, p.name, progress)
		if err != nil {
			return nil, err
		}
		if err := f.take(root, p.files...); err != nil {
			return nil, err
		}
	}
	img, err := alpine(ctx, progress)
	if err != nil {
		return nil, err
	}
	return add(img, f)
}

// jq is Debian's.
func jq(ctx context.Context, progress io.Writer) (v1.Image, error) {
	img, err := onAlpine(ctx, progress, files{}, libc, debian{"jq", []string{"usr/bin/jq"}}, debian{"libjq1", []string{"usr/lib/*/libjq.so.*"}}, debian{"libonig5", []string{"usr/lib/*/libonig.so.*"}})
	if err != nil {
		return nil, err
	}
	return configure(img, []string{"jq"}, nil)
}

// python is Debian's interpreter with the modules of its standard library that
// need no further packages.
func python(ctx context.Context, progress io.Writer) (v1.Image, error) {
	f := files{"usr/bin/python3": link("python3.11"), "usr/bin/python": link("python3.11"), "usr/local/bin/python": link("../../bin/python3.11"), "usr/local/bin/python3": link("../../bin/python3.11")}
	img, err := onAlpine(ctx, progress, f, libc,
		debian{"python3.11-minimal", []string{"usr/bin/python3.11"}},
		debian{"libpython3.11-minimal", []string{"usr/lib/python3.11"}},
		debian{"libpython3.11-stdlib", []string{"usr/lib/python3.11"}},
		debian{"zlib1g", []string{"lib/*/libz.so.*"}},
		debian{"libexpat1", []string{"lib/*/libexpat.so.*", "usr/lib/*/libexpat*.so.*"}})
	if err != nil {
		return nil, err
	}
	return configure(img, nil, []string{"python3"})
}

// argosay says, copies, waits and fails on request.
func argosay(ctx context.Context, progress io.Writer) (v1.Image, error) {
	img, err := busybox(files{"bin/bash": script("#!/bin/sh\nexec sh \"$@\"\n"), "bin/argosay": script(`#!/bin/sh
# argosay [cat FILE... | echo TEXT [FILE] | exit CODE | sleep SECONDS | assert_contains FILE TEXT]...
set -eu
[ $# -gt 0 ] || set -- echo 'hello argo'
case $1 in
cat) shift; exec cat "$@" ;;
echo)
	if [ $# -ge 3 ]; then
		mkdir -p "$(dirname "$3")"
		printf '%s\n' "$2" >"$3"
	else
		printf '%s\n' "${2:-hello argo}"
	fi ;;
exit) exit "${2:-0}" ;;
sleep) exec sleep "${2:-0}" ;;
assert_contains) grep -qF -- "$3" "$2" ;;
*) echo "argosay: no command $1" >&2; exit 1 ;;
esac
`)})(ctx, progress)
	if err != nil {
		return nil, err
	}
	return configure(img, []string{"argosay"}, nil)
}

// nginx serves a page on port 80.
func nginx(ctx context.Context, progress io.Writer) (v1.Image, error) {
	img, err := busybox(files{
		"usr/share/nginx/html/index.html": text("<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n"),
		"usr/sbin/nginx":                  script("#!/bin/sh\nexec busybox httpd -f -p 80 -h /usr/share/nginx/html\n"),
	})(ctx, progress)
	if err != nil {
		return nil, err
	}
	return configure(img, nil, []string{"nginx", "-g", "daemon off;"})
}

// curl gets what its last argument names.
func curl(ctx context.Context, progress io.Writer) (v1.Image, error) {
	img, err := busybox(files{"usr/bin/curl": script("#!/bin/sh\nfor url; do :; done\nexec wget -q -O - \"$url\"\n")})(ctx, progress)
	if err != nil {
		return nil, err
	}
	return configure(img, []string{"curl"}, nil)
}

// whalesay is a whale that says what it is told.
func whalesay(ctx context.Context, progress io.Writer) (v1.Image, error) {
	img, err := busybox(files{"usr/bin/cowsay": script("#!/bin/sh\nprintf '< %s >\\n   \\\\\\n    ~~(  o)<\\n' \"$*\"\n")})(ctx, progress)
	if err != nil {
		return nil, err
	}
	return configure(img, nil, []string{"sh"})
}
