package terraform

import (
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

// Results as Terraform's documentation of each function has them.
func TestFunctions(t *testing.T) {
	for expr, want := range map[string]string{
		`abs(-12.4)`:                   `12.4`,
		`ceil(5.1)`:                    `6`,
		`floor(4.9)`:                   `4`,
		`log(16, 2)`:                   `4`,
		`max(5, 12, 9)`:                `12`,
		`min([5, 12, 9]...)`:           `5`,
		`parseint("FF", 16)`:           `255`,
		`pow(3, 2)`:                    `9`,
		`signum(-13)`:                  `-1`,
		`chomp("a\n")`:                 `a`,
		`endswith("nginx:1", ":1")`:    `true`,
		`startswith("nginx:1", "ng")`:  `true`,
		`strcontains("nginx:1", "x:")`: `true`,
		`format("%s-%03d", "a", 7)`:    `a-007`,
		`formatlist("%s:1", ["a"])[0]`: `a:1`,
		`indent(2, "a\nb")`:            "a\n  b",
		`join("-", ["a", "b"])`:        `a-b`,
		`lower("AB")`:                  `ab`,
		`upper("ab")`:                  `AB`,
		`title("ab cd")`:               `Ab Cd`,
		`regex("[a-z]+", "53453453.345345aaabbbccc23454")`:             `aaabbbccc`,
		`length(regexall("[a-z]+", "1234abcd5678efgh9"))`:              `2`,
		`replace("hello world", "/w.*d/", "everybody")`:                `hello everybody`,
		`replace("1 + 2 + 3", "+", "-")`:                               `1 - 2 - 3`,
		`split(":", "a:b")[1]`:                                         `b`,
		`strrev("abc")`:                                                `cba`,
		`substr("hello world", 1, 4)`:                                  `ello`,
		`trim("?!hello?!", "!?")`:                                      `hello`,
		`trimprefix("helloworld", "hello")`:                            `world`,
		`trimsuffix("helloworld", "world")`:                            `hello`,
		`trimspace("  a\n")`:                                           `a`,
		`alltrue([true, false])`:                                       `false`,
		`anytrue([true, false])`:                                       `true`,
		`alltrue([])`:                                                  `true`,
		`length(chunklist(["a", "b", "c"], 2))`:                        `2`,
		`coalesce("", "b")`:                                            `b`,
		`coalesce(null, "b")`:                                          `b`,
		`coalescelist([], ["c"])[0]`:                                   `c`,
		`length(compact(["a", "", null, "b"]))`:                        `2`,
		`concat(["a"], ["b"])[1]`:                                      `b`,
		`contains(["a", "b"], "b")`:                                    `true`,
		`length(distinct(["a", "b", "a"]))`:                            `2`,
		`element(["a", "b", "c"], 3)`:                                  `a`,
		`element(["a", "b"], -1)`:                                      `b`,
		`flatten([["a"], [], ["b"]])[1]`:                               `b`,
		`index(["a", "b"], "b")`:                                       `1`,
		`keys({ b = 1, a = 2 })[0]`:                                    `a`,
		`length("héllo")`:                                              `5`,
		`length({ a = 1 })`:                                            `1`,
		`lookup({ a = "ay" }, "a", "what?")`:                           `ay`,
		`lookup({ a = "ay" }, "c", "what?")`:                           `what?`,
		`matchkeys(["i-1", "i-2"], ["w", "e"], ["e"])[0]`:              `i-2`,
		`merge({ a = "b" }, { a = "c" }, null).a`:                      `c`,
		`one(["a"])`:                                                   `a`,
		`coalesce(one([]), "none")`:                                    `none`,
		`range(1, 4)[2]`:                                               `3`,
		`reverse([1, 2])[0]`:                                           `2`,
		`length(setintersection(["a", "b"], ["b"]))`:                   `1`,
		`length(setproduct(["a", "b"], ["c", "d"]))`:                   `4`,
		`length(setsubtract(["a", "b"], ["b"]))`:                       `1`,
		`length(setunion(["a"], ["b"]))`:                               `2`,
		`slice(["a", "b", "c"], 1, 2)[0]`:                              `b`,
		`sort(["b", "a"])[0]`:                                          `a`,
		`sum([10, 13])`:                                                `23`,
		`transpose({ a = ["1", "2"], b = ["2"] })["2"][1]`:             `b`,
		`values({ b = 1, a = 2 })[0]`:                                  `2`,
		`zipmap(["a"], ["x"]).a`:                                       `x`,
		`base64decode(base64encode("a:1"))`:                            `a:1`,
		`jsonencode({ a = [1, true, null] })`:                          `{"a":[1,true,null]}`,
		`jsondecode("{\"a\": \"b\"}").a`:                               `b`,
		`yamldecode(yamlencode({ a = "1.10" })).a`:                     `1.10`,
		`yamldecode("a: &x 1.10\nb: *x").b`:                            `1.1`,
		`csvdecode("a,b\n1,2\n")[0].b`:                                 `2`,
		`urlencode("a b/c")`:                                           `a+b%2Fc`,
		`basename("a/b.c")`:                                            `b.c`,
		`dirname("a/b.c")`:                                             `a`,
		`fileexists("main.tf")`:                                        `true`,
		`fileexists("none.tf")`:                                        `false`,
		`join(",", fileset("d", "*.txt"))`:                             `x.txt`,
		`join(",", fileset(path.module, "**/*.txt"))`:                  `d/e/y.txt,d/x.txt`,
		`filebase64("d/x.txt")`:                                        `aGkK`,
		`filemd5("d/x.txt")`:                                           `764efa883dda1e11db47671c4a3bbd9e`,
		`md5("hi\n")`:                                                  `764efa883dda1e11db47671c4a3bbd9e`,
		`sha1("hi\n")`:                                                 `55ca6286e3e4f4fba5d0448333fa99fc5a404a73`,
		`sha256("hi\n")`:                                               `98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4`,
		`base64sha256("")`:                                             `47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=`,
		`templatefile("d/t.tpl", { l = ["a", "b"] })`:                  "a;b;\n",
		`templatestring("$${x}:1", { x = "n" })`:                       `n:1`,
		`formatdate("DD MMM YYYY", "2018-01-02T23:12:01Z")`:            `02 Jan 2018`,
		`timeadd("2017-11-22T00:00:00Z", "10m")`:                       `2017-11-22T00:10:00Z`,
		`timecmp("2017-11-22T00:00:00Z", "2017-11-22T01:00:00+01:00")`: `0`,
		`cidrhost("10.12.112.0/20", 268)`:                              `10.12.113.12`,
		`cidrhost("10.0.0.0/24", -1)`:                                  `10.0.0.255`,
		`cidrnetmask("172.16.0.0/12")`:                                 `255.240.0.0`,
		`cidrsubnet("172.16.0.0/12", 4, 2)`:                            `172.18.0.0/16`,
		`cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)`:              `fd00:fd12:3456:7800:a200::/72`,
		`can({}.none)`:                                                 `false`,
		`can(1)`:                                                       `true`,
		`try({}.none, "x")`:                                            `x`,
		`nonsensitive(sensitive("x"))`:                                 `x`,
		`issensitive(sensitive("x"))`:                                  `true`,
		`tobool("true")`:                                               `true`,
		`tolist(toset(["b", "a"]))[0]`:                                 `a`,
		`tomap({ a = 1, b = "x" }).a`:                                  `1`,
		`tonumber("1.5")`:                                              `1.5`,
		`tostring(1.50)`:                                               `1.5`,
		`core::upper("a")`:                                             `A`,
		`"%{ for x in ["a", "b"] ~}${x},%{ endfor ~}"`:                 `a,b,`,
		`"%{ if true }yes%{ else }no%{ endif }"`:                       `yes`,
	} {
		tree := treeOf(t, "-- main.tf --\nresource \"thing\" \"t\" {\n  text = tostring(\"<${"+expr+"}>\")\n}\n-- d/x.txt --\nhi\n-- d/e/y.txt --\nhi\n-- d/t.tpl --\n%{ for x in l ~}\n${x};\n%{~ endfor }\n")
		if got := evaluate(t, tree); got != "<"+want+">" {
			t.Errorf("%s = %s, want %s", expr, got, want)
		}
	}
}

// evaluate returns the text of thing.t, which is not a sink of ours.
func evaluate(t *testing.T, tree *code.Tree) string {
	t.Helper()
	result := ""
	_, a := evaluateAll(t, tree, "thing", func(r Resource) {
		v := r.Body.GetAttr("text")
		if s, ok := Text(v); ok {
			result = s
		} else {
			result = "? " + TraceOf(v).Reason
		}
	})
	for _, p := range a {
		result += " ! " + p.Text
	}
	return result
}

func TestUnknownFunctionsSaySo(t *testing.T) {
	for expr, want := range map[string]string{
		`provider::aws::arn_parse("x")`: "function provider::aws::arn_parse is not known",
		`bcrypt("x")`:                   "bcrypt() is known only when applied",
		`uuid()`:                        "uuid() is known only when applied",
		`nosuch()`:                      "function nosuch is not known",
		`cidrsubnets("10.0.0.0/8", 4)`:  "cidrsubnets() is known only when applied",
		`upper()`:                       "function upper failed",
		`lookup({}, "a")`:               "function lookup does not find the key, and has no default",
		`jsondecode("{")`:               "function jsondecode failed",
		`file("/etc/passwd")`:           "leads out of the repository",
		`templatefile("t.tpl", {})`:     "template t.tpl:1 uses a, which it is not given",
	} {
		tree := treeOf(t, "-- main.tf --\nresource \"thing\" \"t\" {\n  text = "+expr+"\n}\n-- t.tpl --\n${a}\n")
		if got := evaluate(t, tree); !strings.HasPrefix(got, "? ") || !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
}
