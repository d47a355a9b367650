package terraform

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"cairn.dev/cairn/internal/code"
)

func check(t *testing.T, text, want string, o code.Options) {
	t.Helper()
	tree := treeOf(t, text)
	if got := strings.TrimSpace(summary(t, tree, read(t, tree, o))); got != strings.TrimSpace(want) {
		t.Errorf("got\n%s\nwant\n%s", got, strings.TrimSpace(want))
	}
}

func TestEnvironments(t *testing.T) {
	check(t, "-- app/main.tf --\nvariable \"tag\" {\n  default = \"1\"\n}\n"+imageOf(`"n:${var.tag}"`)+
		"-- other/main.tf --\n"+imageOf(`"o:1"`)+
		"-- app/envs/prod.tfvars --\ntag = \"2\"\n-- stage.tfvars --\ntag = \"3\"\n-- app/nothing.tfvars --\nunheard = \"of\"\n", `
docker_image.i = n:1 < var.tag app/main.tf:2 ["1" "n:"]
gone/docker_image.i = n:1 < var.tag app/main.tf:2 ["1" "n:"]
prod/docker_image.i = n:2 < var.tag app/envs/prod.tfvars:1 ["2" "n:"]
stage/docker_image.i = n:3 < var.tag stage.tfvars:1 ["3" "n:"]
docker_image.i = o:1 ["o:1"]
stage/docker_image.i = o:1 ["o:1"]
! app/gone.tfvars: app/gone.tfvars: no such file in the repository`, code.Options{Environments: map[string][]string{
		"prod": {"app/envs/prod.tfvars"}, "stage": {"./stage.tfvars"}, "gone": {"app/gone.tfvars", "app/nothing.tfvars"},
	}})
}

func TestIgnore(t *testing.T) {
	check(t, "-- a/main.tf --\n"+imageOf(`"n:1"`)+"-- old/main.tf --\n"+imageOf(`"n:2"`)+"-- a/skip.tf --\nlocals {\n",
		`docker_image.i = n:1 ["n:1"]`, code.Options{Ignore: []string{"old/**", "a/skip.tf"}})
}

// A called module is evaluated by its callers, and by itself only when nobody
// else can.
func TestModulesThatNobodyReaches(t *testing.T) {
	check(t, "-- main.tf --\nmodule \"a\" {\n  source = \"./a\"\n}\n"+imageOf(`"r:1"`)+"-- override.tf --\nmodule \"a\" {\n  source = \"git::https://example.com/a\"\n}\n-- a/main.tf --\n"+imageOf(`"n:1"`), `
docker_image.i = r:1 ["r:1"]
docker_image.i = n:1 ["n:1"]`, code.Options{})
}

// What is said of a value says nothing of what is in it.
func TestSecretsStayOut(t *testing.T) {
	const secret = "hunter2"
	for _, expr := range []string{`parseint(var.p, 10)`, `file(var.p)`, `jsondecode(var.p)`, `yamldecode("${var.p}: :")`, `var.p.x`, `{}[var.p]`, `tonumber(var.p)`, `regex("x", var.p)`, `templatefile("${var.p}.tpl", {})`, `format("%d", var.p)`, `local.m[var.p]`, `lookup({}, var.p)`, `base64decode(var.p)`, `formatdate(var.p, var.p)`, `tomap(var.p)`} {
		tree := treeOf(t, "-- main.tf --\nvariable \"p\" {\n  sensitive = true\n}\nlocals {\n  m = tomap({ a = \"b\" })\n}\n"+imageOf(`"n:${`+expr+`}"`)+"module \"m\" {\n  source = var.p\n}\nmodule \"n\" {\n  source = \"git::https://u:"+secret+"@example.com/x\"\n}\nresource \"docker_container\" \"c\" {\n  image = module.n.x\n}\n-- terraform.tfvars --\np = \""+secret+"\"\n")
		r := read(t, tree, code.Options{})
		for _, i := range r.Images {
			if i.Value != "" || strings.Contains(i.Fixed, secret) || i.Fixed == "" {
				t.Errorf("%s: %q, %q", expr, i.Value, i.Fixed)
			}
		}
		for _, p := range r.Problems {
			if strings.Contains(p.Text, secret) {
				t.Errorf("%s: %s", expr, p.Text)
			}
		}
		if len(r.Images) != 2 {
			t.Errorf("%s: %d images", expr, len(r.Images))
		}
	}
}

// One part of a text that is not known leaves a hole, and the images of the
// rest are found.
func TestHoles(t *testing.T) {
	check(t, `-- main.tf --
resource "aws_ecs_task_definition" "t" {
  container_definitions = jsonencode([
    { name = "a", image = "n:1", role = aws_iam_role.r.arn, memory = var.none },
    { name = "b", image = "${aws_ecr_repository.e.repository_url}:2" },
  ])
}
resource "aws_ecs_task_definition" "h" {
  container_definitions = <<-EOT
    [{"image": "n:3", "memory": ${var.none}, "role": "${aws_iam_role.r.arn}"},
     {"image": "${aws_ecr_repository.e.repository_url}:4"}]
  EOT
}
resource "helm_release" "w" {
  values = [yamlencode({ image = { repository = "n", tag = "5" }, host = aws_x.y.z })]
}
resource "aws_iam_role" "r" {}
resource "aws_ecr_repository" "e" {}
variable "none" {}
`, `
aws_ecs_task_definition.h = n:3 < "n:3" main.tf:9 ["[{\"image\": \"n:3\", \"memory\": "]
aws_ecs_task_definition.h = ? aws_ecr_repository.e.repository_url is known only when applied ["\"},\n     {\"image\": \"" ", \"role\": \"" ":4\"}]\n" "[{\"image\": \"n:3\", \"memory\": "]
aws_ecs_task_definition.t = n:1 < "n:1" main.tf:3 ["n:1"]
aws_ecs_task_definition.t = ? aws_ecr_repository.e.repository_url is known only when applied [":2" "a" "b" "n:1"]
helm_release.w = n:5 ["5" "n"]`, code.Options{})
}

// counting reads and says how many files were parsed for it.
func counting(t *testing.T, r *Reader, tree *code.Tree, o code.Options) (*code.Result, int) {
	t.Helper()
	m := r.remember(o)
	known := map[fileKey]bool{}
	for k := range m.parsed.files {
		known[k] = true
	}
	result, err := r.Read(context.Background(), tree, o)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for k := range m.parsed.files {
		if !known[k] {
			n++
		}
	}
	return result, n
}

// What was read is read again only where it changed, and what depends on it
// is evaluated again wherever it is.
func TestRemembers(t *testing.T) {
	tree := treeOf(t, "-- a/main.tf --\nmodule \"m\" {\n  source = \"../m\"\n}\n-- b/main.tf --\nlocals {\n  v = fileexists(\"V\") ? chomp(file(\"V\")) : \"none\"\n}\n"+imageOf(`"b:${local.v}"`)+"-- m/main.tf --\n"+imageOf(`"m:1"`)+"-- c/main.tf --\n"+imageOf(`"c:1"`))
	var r Reader
	values := func(r *code.Result) string {
		var s []string
		for _, i := range r.Images {
			s = append(s, i.Value)
		}
		slices.Sort(s)
		return strings.Join(s, " ")
	}
	result, n := counting(t, &r, tree, code.Options{})
	if got := values(result); got != "b:none c:1 m:1" || n != 4 {
		t.Fatalf("cold: %s, %d parsed", got, n)
	}
	if result, n = counting(t, &r, tree, code.Options{}); values(result) != "b:none c:1 m:1" || n != 0 {
		t.Errorf("again: %s, %d parsed", values(result), n)
	}
	f, _ := tree.Read("m/main.tf")
	at := strings.Index(string(f.Data), "m:1")
	changed, err := tree.With([]code.Splice{{Range: code.Range{File: "m/main.tf", Start: at, End: at + 3}, New: "m:2"}})
	if err != nil {
		t.Fatal(err)
	}
	if result, n = counting(t, &r, changed, code.Options{}); values(result) != "b:none c:1 m:2" || n != 1 {
		t.Errorf("a changed module: %s, %d parsed", values(result), n)
	}
	if result, n = counting(t, &r, tree, code.Options{}); values(result) != "b:none c:1 m:1" || n != 0 {
		t.Errorf("back: %s, %d parsed", values(result), n)
	}
	var files []code.File
	for _, p := range tree.Paths() {
		f, _ := tree.Read(p)
		files = append(files, f)
	}
	for _, extra := range []struct{ path, text, want string }{
		{"b/V", "7\n", "b:7 c:1 m:1"},
		{"c/override.tf", imageOf(`"c:2"`), "b:none c:2 m:1"},
		{"d/main.tf", imageOf(`"d:1"`), "b:none c:1 d:1 m:1"},
		{"e/main.tf", "module \"c\" {\n  source = \"../c\"\n}\n", "b:none c:1 m:1"},
	} {
		more, err := code.NewTree(append(slices.Clone(files), code.File{Path: extra.path, Data: []byte(extra.text)}))
		if err != nil {
			t.Fatal(err)
		}
		if result, _ = counting(t, &r, more, code.Options{}); values(result) != extra.want {
			t.Errorf("with %s: %s, want %s", extra.path, values(result), extra.want)
		}
	}
}

func TestConcurrently(t *testing.T) {
	tree, err := code.NewTree(repository(8))
	if err != nil {
		t.Fatal(err)
	}
	var r Reader
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			at := code.Splice{Range: code.Range{File: "services/s0003/terraform.tfvars", Start: 7, End: 8}, New: string(rune('a' + i))}
			changed, err := tree.With([]code.Splice{at})
			if err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				result, err := r.Read(context.Background(), changed, code.Options{})
				if err != nil || len(result.Images) != 16 || !slices.ContainsFunc(result.Images, func(i code.Image) bool { return i.Value == "ghcr.io/acme/w3:"+at.New+".3" }) {
					t.Errorf("%s: %v", at.New, err)
				}
			}
		})
	}
	wg.Wait()
}

// What panics is one thing that is not known, and the rest is read.
func TestPanicsAreFenced(t *testing.T) {
	tree := treeOf(t, "-- main.tf --\nresource \"thing\" \"a\" {\n}\nresource \"thing\" \"b\" {\n}\n")
	seen := ""
	_, problems := evaluateAll(t, tree, "thing", func(r Resource) {
		if r.Name == "a" {
			panic("a bug")
		}
		seen += r.Name
	})
	if seen != "b" || len(problems) != 1 || problems[0].Text != "thing.a cannot be evaluated" || problems[0].Place.Line != 1 {
		t.Errorf("%q, %v", seen, problems)
	}
}
