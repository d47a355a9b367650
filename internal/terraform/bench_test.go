package terraform

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

// repository is a monorepo of n services with ten files each, about 2 kB a
// file, two images a service: one written out, one through a variable, a
// local and a module that all services share.
func repository(n int) []code.File {
	var files []code.File
	add := func(name, text string) { files = append(files, code.File{Path: name, Data: []byte(text)}) }
	filler := func(k int) string {
		var s strings.Builder
		for i := range 8 {
			fmt.Fprintf(&s, "resource \"aws_iam_role\" \"r%d_%d\" {\n  name = \"role-%d\"\n  assume_role_policy = jsonencode({\n    Version   = \"2012-10-17\"\n    Statement = [{ Effect = \"Allow\", Action = \"sts:AssumeRole\", Principal = { Service = \"ec2.amazonaws.com\" } }]\n  })\n}\n", k, i, i)
		}
		return s.String()
	}
	add("modules/app/main.tf", "variable \"image\" {}\nresource \"kubernetes_deployment\" \"app\" {\n  spec {\n    template {\n      spec {\n        container {\n          image = var.image\n        }\n      }\n    }\n  }\n}\n")
	for i := range n {
		dir := fmt.Sprintf("services/s%04d/", i)
		add(dir+"main.tf", fmt.Sprintf("resource \"kubernetes_deployment\" \"d\" {\n  spec {\n    template {\n      spec {\n        container {\n          image = \"ghcr.io/acme/s%d:1.%d\"\n        }\n      }\n    }\n  }\n}\n", i, i)+filler(0))
		add(dir+"app.tf", "module \"app\" {\n  source = \"../../modules/app\"\n  image  = local.image\n}\n"+filler(1))
		add(dir+"locals.tf", fmt.Sprintf("variable \"tag\" {}\nlocals {\n  image = \"ghcr.io/acme/w%d:${var.tag}\"\n}\n", i)+filler(2))
		add(dir+"terraform.tfvars", fmt.Sprintf("tag = \"2.%d\"\n", i))
		for k := 3; k < 9; k++ {
			add(fmt.Sprintf("%sf%d.tf", dir, k), filler(k))
		}
	}
	return files
}

func BenchmarkRead(b *testing.B) {
	files := repository(1000)
	tree, err := code.NewTree(files)
	if err != nil {
		b.Fatal(err)
	}
	size := 0
	for _, f := range files {
		size += len(f.Data)
	}
	b.Run("cold", func(b *testing.B) {
		b.SetBytes(int64(size))
		for b.Loop() {
			var r Reader
			result, err := r.Read(context.Background(), tree, code.Options{})
			if err != nil || len(result.Images) != 2000 {
				b.Fatalf("%d images, %v", len(result.Images), err)
			}
		}
	})
	b.Run("warm", func(b *testing.B) {
		var r Reader
		if _, err := r.Read(context.Background(), tree, code.Options{}); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for i := 0; b.Loop(); i++ {
			changed, err := tree.With([]code.Splice{{Range: code.Range{File: "services/s0007/terraform.tfvars", Start: 7, End: 8}, New: fmt.Sprint(i)}})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.Read(context.Background(), changed, code.Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
