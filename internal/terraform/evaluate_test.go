package terraform

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

// split makes files of a text: each behind a line "-- name --". A file whose
// text is "-> path" is a symbolic link.
func split(text string) []code.File {
	var files []code.File
	for part := range strings.SplitSeq("\n"+text, "\n-- ") {
		name, body, ok := strings.Cut(part, " --\n")
		if !ok {
			continue
		}
		f := code.File{Path: name}
		if to, is := strings.CutPrefix(body, "-> "); is {
			f.Link = strings.TrimSpace(to)
		} else {
			f.Data = []byte(strings.TrimSuffix(body, "\n") + "\n")
		}
		files = append(files, f)
	}
	return files
}

// treeOf makes a tree of a text; see [split].
func treeOf(t testing.TB, text string) *code.Tree {
	t.Helper()
	tree, err := code.NewTree(split(text))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func read(t testing.TB, tree *code.Tree, o code.Options) *code.Result {
	t.Helper()
	var r Reader
	result, err := r.Read(context.Background(), tree, o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// summary is a line for each image: its address, its value or why there is
// none, the names on the way, and the bytes it comes from; then the problems.
func summary(t testing.TB, tree *code.Tree, r *code.Result) string {
	t.Helper()
	var out strings.Builder
	for _, i := range r.Images {
		if i.Environment != "" {
			fmt.Fprintf(&out, "%s/", i.Environment)
		}
		fmt.Fprintf(&out, "%s = %s", i.Address, i.Value)
		if i.Value == "" {
			fmt.Fprintf(&out, "? %s", i.Fixed)
		}
		for _, step := range i.Chain[1:] {
			fmt.Fprintf(&out, " < %s %s", step.Name, step.Place)
		}
		var sources []string
		for _, src := range i.Sources {
			f, err := tree.Read(src.File)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, string(f.Data[src.Start:src.End]))
		}
		slices.Sort(sources)
		fmt.Fprintf(&out, " %q\n", slices.Compact(sources))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&out, "! %s: %s\n", p.Place, p.Text)
	}
	return out.String()
}

// imageOf is a resource with one image, which is most of what tests need.
func imageOf(expr string) string {
	return "resource \"docker_image\" \"i\" {\n  name = " + expr + "\n}\n"
}

// Each tree has one resource docker_image.i, or says more.
var evaluated = []struct{ name, tree, want string }{
	{"literal", "-- main.tf --\n" + imageOf(`"nginx:1"`), `docker_image.i = nginx:1 ["nginx:1"]`},
	{"template", "-- main.tf --\nlocals {\n  tag = \"1.2\"\n}\n" + imageOf(`"nginx:${local.tag}"`),
		`docker_image.i = nginx:1.2 < local.tag main.tf:2 ["1.2" "nginx:"]`},
	{"two locals", "-- main.tf --\nlocals {\n  a = \"1.2\"\n  b = \"nginx:${local.a}\"\n}\n" + imageOf(`local.b`),
		`docker_image.i = nginx:1.2 < local.b main.tf:3 < local.a main.tf:2 ["1.2" "nginx:"]`},
	{"member of an object", "-- main.tf --\nlocals {\n  images = {\n    api = { tag = \"3\" }\n    web = { tag = \"4\" }\n  }\n}\n" + imageOf(`"x/web:${local.images["web"].tag}"`),
		`docker_image.i = x/web:4 < local.images.web.tag main.tf:4 ["4" "x/web:"]`},
	{"element of a list", "-- main.tf --\nlocals {\n  l = [\"a:1\", \"b:2\"]\n}\n" + imageOf(`local.l[1]`), `docker_image.i = b:2 < local.l[1] main.tf:2 ["b:2"]`},
	{"default of a variable", "-- main.tf --\nvariable \"tag\" {\n  default = \"7\"\n}\n" + imageOf(`"n:${var.tag}"`), `docker_image.i = n:7 < var.tag main.tf:2 ["7" "n:"]`},
	{"a variable nobody sets", "-- main.tf --\nvariable \"tag\" {}\n" + imageOf(`"n:${var.tag}"`),
		`docker_image.i = ? value not in the repository: var.tag has no default ["n:"]`},
	{"a variable nobody declares", "-- main.tf --\n" + imageOf(`var.x`), `docker_image.i = ? var.x is not declared []`},
	{"a local nobody defines", "-- main.tf --\n" + imageOf(`local.x`), `docker_image.i = ? local.x is not defined []`},
	{"terraform.tfvars", "-- main.tf --\nvariable \"tag\" {\n  default = \"7\"\n}\n" + imageOf(`"n:${var.tag}"`) + "-- terraform.tfvars --\ntag = \"8\"\n",
		`docker_image.i = n:8 < var.tag terraform.tfvars:1 ["8" "n:"]`},
	{"terraform.tfvars.json", "-- main.tf --\nvariable \"tag\" {}\n" + imageOf(`"n:${var.tag}"`) + "-- terraform.tfvars.json --\n{\"tag\": \"8\"}\n",
		`docker_image.i = n:8 < var.tag terraform.tfvars.json:1 ["8" "n:"]`},
	{"auto.tfvars in order", "-- main.tf --\nvariable \"tag\" {}\n" + imageOf(`"n:${var.tag}"`) + "-- terraform.tfvars --\ntag = \"1\"\n-- b.auto.tfvars --\ntag = \"3\"\n-- a.auto.tfvars.json --\n{\"tag\": \"2\"}\n-- c.tfvars --\ntag = \"4\"\n",
		`docker_image.i = n:3 < var.tag b.auto.tfvars:1 ["3" "n:"]`},
	{"optional with a default", "-- main.tf --\nvariable \"s\" {\n  type = object({\n    image = optional(string, \"n:1\")\n  })\n  default = {}\n}\n" + imageOf(`var.s.image`),
		`docker_image.i = n:1 < var.s.image main.tf:5 < "n:1" main.tf:3 ["n:1"]`},
	{"a number becomes a string", "-- main.tf --\nvariable \"v\" {\n  type    = string\n  default = 17\n}\n" + imageOf(`"n:${var.v}"`), `docker_image.i = n:17 < var.v main.tf:3 ["17" "n:"]`},
	{"null falls back where it must not be", "-- main.tf --\nmodule \"m\" {\n  source = \"./m\"\n  tag    = null\n}\n-- m/m.tf --\nvariable \"tag\" {\n  default  = \"5\"\n  nullable = false\n}\n" + imageOf(`"n:${var.tag}"`),
		`module.m.docker_image.i = n:5 < var.tag m/m.tf:2 ["5" "n:"]`},
	{"conditional", "-- main.tf --\nvariable \"t\" {\n  default = \"\"\n}\n" + imageOf(`var.t != "" ? "n:${var.t}" : "n:9"`), `docker_image.i = n:9 ["n:" "n:9"]`},
	{"functions keep origins", "-- main.tf --\nlocals {\n  m = merge({ tag = \"1\" }, { tag = \"2\" })\n}\n" + imageOf(`format("%s:%s", "n", lookup(local.m, "tag", "3"))`),
		`docker_image.i = n:2 < local.m.tag main.tf:2 ["2" "n"]`},
	{"join, split, replace", "-- main.tf --\n" + imageOf(`join(":", [split("|", "n|x")[0], replace("v1.2", "/^v/", "")])`), `docker_image.i = n:1.2 [":" "n|x" "v1.2"]`},
	{"coalesce, try, element, trimprefix", "-- main.tf --\nlocals {\n  o = {}\n}\n" + imageOf(`"${coalesce("", "n")}:${try(local.o.tag, trimprefix(element(["v8"], 3), "v"))}"`), `docker_image.i = n:8 [":" "n" "v8"]`},
	{"for and splat", "-- main.tf --\nlocals {\n  l = [{ i = \"a:1\" }, { i = \"b:2\" }]\n}\n" + imageOf(`[for x in local.l[*].i : x if x != "a:1"][0]`), `docker_image.i = b:2 < local.l[1].i main.tf:2 ["b:2"]`},
	{"heredoc", "-- main.tf --\n" + imageOf("chomp(<<-EOT\n    n:${\"1\"}\n  EOT\n  )"), `docker_image.i = n:1 < "1" main.tf:3 ["1" "n:"]`},
	{"workspace", "-- main.tf --\nlocals {\n  tags = { default = \"1\", prod = \"2\" }\n}\n" + imageOf(`"n:${local.tags[terraform.workspace]}"`), `docker_image.i = n:1 < local.tags.default main.tf:2 ["1" "n:"]`},
	{"count", "-- main.tf --\nresource \"docker_image\" \"i\" {\n  count = 2\n  name  = \"n:${count.index}\"\n}\n", `
docker_image.i[0] = n:0 ["n:"]
docker_image.i[1] = n:1 ["n:"]`},
	{"count of none", "-- main.tf --\nresource \"docker_image\" \"i\" {\n  count = false ? 1 : 0\n  name  = \"n:1\"\n}\nresource \"docker_image\" \"j\" {\n  count = 0\n  name  = \"n:${count.index}\"\n}\n",
		`docker_image.i[*] = n:1 ["n:1"]`},
	{"for_each", "-- main.tf --\nresource \"docker_image\" \"i\" {\n  for_each = {\n    a = \"n:1\"\n    b = \"n:2\"\n  }\n  name = each.value\n}\n", `
docker_image.i["a"] = n:1 < "n:1" main.tf:3 ["n:1"]
docker_image.i["b"] = n:2 < "n:2" main.tf:4 ["n:2"]`},
	{"for_each over a set", "-- main.tf --\nresource \"docker_image\" \"i\" {\n  for_each = toset([\"m:1\", \"n:2\"])\n  name     = each.key\n}\n", `
docker_image.i["m:1"] = m:1 < "m:1" main.tf:2 ["m:1"]
docker_image.i["n:2"] = n:2 < "n:2" main.tf:2 ["n:2"]`},
	{"for_each with images as keys", "-- main.tf --\nresource \"docker_image\" \"i\" {\n  for_each = { \"n:1\" = true }\n  name     = each.key\n}\n",
		`docker_image.i["n:1"] = n:1 < "n:1" main.tf:2 ["n:1"]`},
	{"keys of a var-file, in a called module", "-- main.tf --\nvariable \"images\" {}\nmodule \"m\" {\n  source = \"./m\"\n  images = var.images\n}\n-- m/main.tf --\nvariable \"images\" {}\nresource \"docker_image\" \"i\" {\n  for_each = var.images\n  name     = each.key\n}\n-- terraform.tfvars --\nimages = {\n  \"n:1\" = {}\n}\n",
		`module.m.docker_image.i["n:1"] = n:1 < "n:1" terraform.tfvars:2 ["n:1"]`},
	{"for_each that is not known", "-- main.tf --\nvariable \"s\" {}\nresource \"docker_image\" \"i\" {\n  for_each = var.s\n  name     = \"n:1\"\n}\nresource \"docker_image\" \"j\" {\n  for_each = var.s\n  name     = each.value\n}\n", `
docker_image.i[*] = n:1 ["n:1"]
docker_image.j[*] = ? value not in the repository: var.s has no default []`},
	{"dynamic with an iterator", "-- main.tf --\nresource \"kubernetes_pod\" \"p\" {\n  spec {\n    dynamic \"container\" {\n      for_each = [\"a:1\", \"b:2\"]\n      iterator = c\n      content {\n        image = c.value\n      }\n    }\n  }\n}\n", `
kubernetes_pod.p = a:1 < "a:1" main.tf:4 ["a:1"]
kubernetes_pod.p = b:2 < "b:2" main.tf:4 ["b:2"]`},
	{"dynamic within dynamic", "-- main.tf --\nresource \"kubernetes_pod\" \"p\" {\n  dynamic \"spec\" {\n    for_each = [{ images = [\"a:1\"] }]\n    content {\n      dynamic \"container\" {\n        for_each = spec.value.images\n        content {\n          image = container.value\n        }\n      }\n    }\n  }\n}\n",
		`kubernetes_pod.p = a:1 < "a:1" main.tf:3 ["a:1"]`},
	{"modules two deep", "-- main.tf --\nmodule \"a\" {\n  source = \"./a\"\n  tag    = \"6\"\n}\n-- a/main.tf --\nvariable \"tag\" {}\nmodule \"b\" {\n  source = \"../b\"\n  image  = \"n:${var.tag}\"\n}\n-- b/main.tf --\nvariable \"image\" {}\n" + imageOf(`var.image`),
		`module.a.module.b.docker_image.i = n:6 < var.image a/main.tf:4 < var.tag main.tf:3 ["6" "n:"]`},
	{"instances of modules", "-- main.tf --\nmodule \"a\" {\n  source   = \"./a\"\n  for_each = { x = \"1\", y = \"2\" }\n  tag      = each.value\n}\n-- a/main.tf --\nvariable \"tag\" {}\n" + imageOf(`"n:${var.tag}"`), `
module.a["x"].docker_image.i = n:1 < var.tag main.tf:4 < "1" main.tf:3 ["1" "n:"]
module.a["y"].docker_image.i = n:2 < var.tag main.tf:4 < "2" main.tf:3 ["2" "n:"]`},
	{"outputs", "-- main.tf --\nmodule \"v\" {\n  source = \"./v\"\n}\n" + imageOf(`module.v.images.web`) + "-- v/main.tf --\noutput \"images\" {\n  value = { web = \"n:3\" }\n}\n",
		`docker_image.i = n:3 < module.v.images.web v/main.tf:2 ["n:3"]`},
	{"a module from elsewhere", "-- main.tf --\nmodule \"v\" {\n  source = \"git::https://example.com/v.git\"\n}\n" + imageOf(`module.v.image`),
		`docker_image.i = ? module source git::https://example.com/v.git is not in the repository []`},
	{"attributes of resources", "-- main.tf --\nresource \"docker_image\" \"a\" {\n  name = \"n:1\"\n}\nresource \"docker_container\" \"c\" {\n  image = docker_image.a.image_id\n}\n", `
docker_container.c = n:1 < docker_image.a.name main.tf:2 ["n:1"]
docker_image.a = n:1 ["n:1"]`},
	{"known only when applied", "-- main.tf --\ndata \"aws_ssm_parameter\" \"t\" {\n  name = \"/tag\"\n}\n" + imageOf(`"n:${data.aws_ssm_parameter.t.value}"`),
		`docker_image.i = ? data.aws_ssm_parameter.t.value is known only when applied ["n:"]`},
	{"unknown function", "-- main.tf --\n" + imageOf(`provider::acme::tag("n")`), `docker_image.i = ? function provider::acme::tag is not known at main.tf:2 []`},
	{"time", "-- main.tf --\n" + imageOf(`"n:${formatdate("YYYY", timestamp())}"`), `docker_image.i = ? timestamp() is known only when applied ["YYYY" "n:"]`},
	{"yamldecode of a file", "-- main.tf --\nlocals {\n  c = yamldecode(file(\"${path.module}/c.yaml\"))\n}\n" + imageOf(`"n:${local.c.web.tag}"`) + "-- c.yaml --\nold: \"1.2\"\nweb:\n  tag: \"1.2\" # the one\n",
		`docker_image.i = n:1.2 < local.c.web.tag main.tf:2 < "1.2" c.yaml:3 ["1.2" "n:"]`},
	{"jsondecode of a file", "-- main.tf --\n" + imageOf(`jsondecode(file("c.json"))["images"][0]`) + "-- c.json --\n{\"images\": [\"n:1\", \"n:1\"]}\n", `docker_image.i = n:1 < "n:1" c.json:1 ["n:1"]`},
	{"file", "-- main.tf --\n" + imageOf(`"n:${trimspace(file("VERSION"))}"`) + "-- VERSION --\n1.4.2\n", `docker_image.i = n:1.4.2 < "1.4.2" VERSION:1 ["1.4.2\n" "n:"]`},
	{"file that is not there", "-- main.tf --\n" + imageOf(`"n:${file("VERSION")}"`), `docker_image.i = ? function file: VERSION is not in the repository at main.tf:2 ["n:"]`},
	{"file outside", "-- main.tf --\n" + imageOf(`"n:${file("../VERSION")}"`), `docker_image.i = ? function file: ../VERSION leads out of the repository at main.tf:2 ["n:"]`},
	{"path.module of a called module", "-- main.tf --\nmodule \"a\" {\n  source = \"./x/a\"\n}\n-- x/a/main.tf --\n" + imageOf(`"n:${chomp(file("${path.module}/V"))}"`) + "-- x/a/V --\n9\n",
		`module.a.docker_image.i = n:9 < "9" x/a/V:1 ["9\n" "n:"]`},
	{"templatefile", "-- main.tf --\nresource \"kubectl_manifest\" \"m\" {\n  yaml_body = templatefile(\"m.tpl\", { tag = \"5\", arn = aws_x.y.arn })\n}\n-- m.tpl --\nkind: Pod\nmetadata: { name: \"${arn}\" }\nspec:\n  containers:\n  - image: n:${tag}\n",
		`kubectl_manifest.m = n:5 ["\" }\nspec:\n  containers:\n  - image: n:" "5" "kind: Pod\nmetadata: { name: \""]`},
	{"override", "-- main.tf --\n" + imageOf(`"n:1"`) + "-- override.tf --\n" + imageOf(`"n:2"`), `docker_image.i = n:2 ["n:2"]`},
	{".tofu in the place of .tf", "-- main.tf --\n" + imageOf(`"n:1"`) + "-- main.tofu --\n" + imageOf(`"n:2"`), `docker_image.i = n:2 ["n:2"]`},
	{"json", `-- main.tf.json --
{"locals": {"tag": "1.2"},
 "resource": {"docker_image": {"i": {"name": "n:${local.tag}"}}}}
`, `docker_image.i = n:1.2 < local.tag main.tf.json:1 ["1.2" "n:"]`},
	{"json with escapes", `-- main.tf.json --
{"resource": {"docker_image": {"i": [{"//": "a comment", "name": "n\u003a1"}]}}}
`, `docker_image.i = n:1 ["n\\u003a1"]`},
	{"json with dynamic blocks", `-- main.tf.json --
{"resource": {"kubernetes_pod": {"p": {"spec": {"dynamic": {"container": {"for_each": ["a:1"], "content": {"image": "${container.value}"}}}}}}}}
`, `kubernetes_pod.p = a:1 ["a:1"]`},
	{"json variables", `-- main.tf.json --
{"variable": {"s": {"type": "object({i = optional(string)})", "default": {"i": "n:${1}"}}}, "resource": {"docker_image": {"i": {"name": "${replace(var.s.i, \"$${1}\", \"2\")}"}}}}
`, `docker_image.i = n:2 ["${replace(var.s.i, \\\"$${1}\\\", \\\"2\\\")}" "n:${1}"]`},
	{"two root modules", "-- a/main.tf --\n" + imageOf(`"n:1"`) + "-- b/main.tf --\n" + imageOf(`"n:2"`), `
docker_image.i = n:1 ["n:1"]
docker_image.i = n:2 ["n:2"]`},
	{"sensitive", "-- main.tf --\nvariable \"p\" {\n  default   = \"hunter2\"\n  sensitive = true\n}\n" + imageOf(`"n:${parseint(var.p, 10)}"`), `docker_image.i = ? function parseint failed at main.tf:6 ["n:"]`},
	{"instances as a whole", "-- main.tf --\nresource \"docker_image\" \"a\" {\n  for_each = { x = \"n:1\" }\n  name     = each.value\n}\nresource \"docker_container\" \"c\" {\n  image = docker_image.a[\"x\"].name\n}\nresource \"docker_container\" \"d\" {\n  for_each = docker_image.a\n  image = each.value.name\n}\n", `
docker_container.c = n:1 < docker_image.a.name main.tf:3 < "n:1" main.tf:2 ["n:1"]
docker_container.d["x"] = n:1 < docker_image.a.name main.tf:3 < "n:1" main.tf:2 ["n:1"]
docker_image.a["x"] = n:1 < "n:1" main.tf:2 ["n:1"]`},
	{"a local that needs itself", "-- main.tf --\nlocals {\n  a = local.b\n  b = local.a\n}\n" + imageOf(`local.a`), `
docker_image.i = ? local.a depends on itself []
! main.tf:2: local.a depends on itself`},
	{"modules in a circle", "-- a/main.tf --\nmodule \"b\" {\n  source = \"../b\"\n}\n-- b/main.tf --\nmodule \"a\" {\n  source = \"../a\"\n}\n" + imageOf(`"n:1"`), `
module.b.docker_image.i = n:1 ["n:1"]
! b/main.tf:1: module.a calls the module that it is in`},
	{"a module outside", "-- main.tf --\nmodule \"b\" {\n  source = \"../../b\"\n}\n" + imageOf(`"n:1"`), `
docker_image.i = n:1 ["n:1"]
! main.tf:1: module source ../../b leads out of the repository`},
	{"invalid HCL", "-- main.tf --\n" + imageOf(`"n:1"`) + "-- broken.tf --\nlocals {\n  a = \n}\nlocals {\n  b = \"x\"\n}\n", `
docker_image.i = n:1 ["n:1"]
! broken.tf:2: invalid: invalid expression; the rest of the file is read as far as possible`},
	{"symbolic links", "-- main.tf --\n-> common/main.tf\n-- common/main.tf --\n" + imageOf(`"n:1"`), `
docker_image.i = n:1 ["n:1"]
docker_image.i = n:1 ["n:1"]`},
	{"typed maps of objects", "-- main.tf --\nmodule \"m\" {\n  source = \"./m\"\n  apps = {\n    a = { image = \"n:1\" }\n    b = {\n      image = \"n:2\"\n      tag   = \"x\"\n    }\n  }\n}\n-- m/main.tf --\nvariable \"apps\" {\n  type = map(object({\n    image = string\n    tag   = optional(string, \"def\")\n  }))\n}\nresource \"docker_image\" \"i\" {\n  for_each = var.apps\n  name     = \"${each.value.image}-${each.value.tag}\"\n}\n", `
module.m.docker_image.i["a"] = n:1-def < var.apps.a.tag main.tf:3 < "def" m/main.tf:4 ["-" "def" "n:1"]
module.m.docker_image.i["b"] = n:2-x ["-" "n:2" "x"]`},
	{"typed lists and sets", "-- main.tf --\nvariable \"l\" {\n  type    = list(object({ i = string }))\n  default = [{ i = \"n:1\" }]\n}\nvariable \"s\" {\n  type    = set(string)\n  default = [\"n:2\"]\n}\n" + imageOf(`var.l[0].i`) + "resource \"docker_image\" \"s\" {\n  for_each = var.s\n  name     = each.value\n}\n", `
docker_image.i = n:1 < var.l[0].i main.tf:3 ["n:1"]
docker_image.s["n:2"] = n:2 < var.s main.tf:7 ["n:2"]`},
	{"values of any type", "-- main.tf --\nvariable \"a\" {\n  type    = any\n  default = { x = [\"n:1\", 2] }\n}\n" + imageOf(`var.a.x[0]`), `docker_image.i = n:1 < var.a.x[0] main.tf:3 ["n:1"]`},
	{"a value that does not fit", "-- main.tf --\nvariable \"a\" {\n  type    = number\n  default = \"n:1\"\n}\n" + imageOf(`var.a`), `
docker_image.i = ? var.a does not fit the type of var.a []
! main.tf:3: var.a does not fit the type of var.a`},
	{"tables of workspaces and regions", "-- main.tf --\nlocals {\n  env = lookup({ default = \"dev\" }, terraform.workspace, \"prod\")\n  t   = { dev = { eu = \"1\" }, prod = { eu = \"2\" } }\n}\n" + imageOf(`"n:${local.t[local.env]["eu"]}"`), `docker_image.i = n:1 < local.t.dev.eu main.tf:3 ["1" "n:"]`},
	{"nested for", "-- main.tf --\nlocals {\n  apps = { web = { v = [\"1\", \"2\"] } }\n  flat = merge([for a, o in local.apps : { for v in o.v : \"${a}-${v}\" => \"${a}:${v}\" }]...)\n}\nresource \"docker_image\" \"i\" {\n  for_each = local.flat\n  name     = each.value\n}\n", `
docker_image.i["web-1"] = web:1 < local.flat.web-1 main.tf:3 < local.apps.web.v[0] main.tf:2 ["1" ":"]
docker_image.i["web-2"] = web:2 < local.flat.web-2 main.tf:3 < local.apps.web.v[1] main.tf:2 ["2" ":"]`},
	{"a data source of a template", "-- main.tf --\ndata \"template_file\" \"t\" {\n  template = file(\"t.json\")\n  vars     = { tag = \"4\" }\n}\nresource \"aws_ecs_task_definition\" \"d\" {\n  container_definitions = data.template_file.t.rendered\n}\n-- t.json --\n[{\"image\": \"n:${tag}\"}]\n",
		`aws_ecs_task_definition.d = n:4 < data.template_file.t.rendered main.tf:2 < "4" main.tf:3 ["4" "[{\"image\": \"n:"]`},
	{"self and each in nested blocks", "-- main.tf --\nresource \"kubernetes_pod\" \"p\" {\n  for_each = { a = \"n:1\" }\n  spec {\n    dynamic \"container\" {\n      for_each = [1]\n      content {\n        image = each.value\n      }\n    }\n  }\n}\n", `kubernetes_pod.p["a"] = n:1 < "n:1" main.tf:2 ["n:1"]`},
	{"outputs of instances", "-- main.tf --\nmodule \"v\" {\n  source   = \"./v\"\n  for_each = toset([\"a\"])\n  name     = each.key\n}\n" + imageOf(`module.v["a"].image`) + "-- v/main.tf --\nvariable \"name\" {}\noutput \"image\" {\n  value = \"${var.name}:1\"\n}\n",
		`docker_image.i = a:1 < module.v.image v/main.tf:3 [":1" "a"]`},
	{"a module behind a link", "-- a/main.tf --\nmodule \"m\" {\n  source = \"../mods/m\"\n}\n-- mods --\n-> shared/modules\n-- shared/modules/m/main.tf --\n" + imageOf(`"n:${chomp(file("../mods/m/V"))}"`) + "-- shared/modules/m/V --\n3\n",
		`module.m.docker_image.i = n:3 < "3" shared/modules/m/V:1 ["3\n" "n:"]`},
	{"BOM and CRLF", "-- main.tf --\n\ufeffresource \"docker_image\" \"i\" {\r\n\tname = \"n:1\"\r\n}\r\n", `docker_image.i = n:1 ["n:1"]`},
}

// evaluateAll hands over the resources of a type, without looking for images.
func evaluateAll(t *testing.T, tree *code.Tree, typ string, emit func(Resource)) (*run, []code.Problem) {
	t.Helper()
	types := map[string]bool{typ: true}
	g := newGraph(tree, types, func(string) bool { return false }, func(f code.File) facts { return glance(f.Data, types) })
	r := newRun(context.Background(), task{root: "."}, newReads(tree, g, &parsed{}, func(string) bool { return false }), types, emit)
	r.evaluate(nil)
	return r, r.problems
}

func TestEvaluate(t *testing.T) {
	for _, test := range evaluated {
		t.Run(test.name, func(t *testing.T) {
			tree := treeOf(t, test.tree)
			if got, want := strings.TrimSpace(summary(t, tree, read(t, tree, code.Options{}))), strings.TrimSpace(test.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
