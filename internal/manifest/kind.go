package manifest

import (
	"path"
	"strings"
)

// A kind of file, by its name.
type kind uint8

const (
	other kind = iota
	marked
	plain // YAML that says itself what it is
	kustomization
	chart
	values
	pulumi
	stack
	compose
	dockerfile
)

// kindOf tells the kind of the file at p.
func kindOf(p string) kind {
	base := strings.ToLower(path.Base(p))
	if isDockerfile(base) {
		return dockerfile
	}
	if base == "kustomization" {
		return kustomization
	}
	stem, isYAML := strings.CutSuffix(base, ".yaml")
	if !isYAML {
		if stem, isYAML = strings.CutSuffix(base, ".yml"); !isYAML {
			return other
		}
	}
	switch {
	case stem == "kustomization":
		return kustomization
	case stem == "chart":
		return chart
	case stem == "pulumi", stem == "main" && strings.HasPrefix(path.Base(p), "Main."):
		return pulumi
	case strings.HasPrefix(stem, "pulumi."):
		return stack
	case hasWord(stem, "compose"):
		return compose
	case hasWord(stem, "values"):
		return values
	}
	return plain
}

func isDockerfile(base string) bool {
	for _, name := range []string{"dockerfile", "containerfile"} {
		if base == name || strings.HasPrefix(base, name+".") || strings.HasPrefix(base, name+"-") || strings.HasSuffix(base, "."+name) {
			return true
		}
	}
	return false
}

// hasWord reports whether w is one of the words that a file's name is made of:
// values, values-prod, prod.values.
func hasWord(stem, w string) bool {
	for part := range strings.FieldsFuncSeq(stem, func(r rune) bool { return r == '-' || r == '.' || r == '_' }) {
		if part == w {
			return true
		}
	}
	return false
}
