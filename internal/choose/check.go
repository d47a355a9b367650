package choose

import (
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// Check reports what is wrong with a policy, and the cure.
func (p Policy) Check() error {
	expr, isExpr := strings.CutPrefix(p.Versioning, "regex:")
	switch {
	case isExpr:
		if _, err := newGrouped(expr); err != nil {
			return err
		}
	case p.Versioning != "" && !slices.Contains(Versionings, p.Versioning):
		return fmt.Errorf("versioning %.80q is not known: there are %s and regex:EXPR", p.Versioning, strings.Join(Versionings, ", "))
	}
	if p.Range != "" {
		if err := CheckRange(p.Range); err != nil {
			return err
		}
		if p.Versioning == "pushed" || p.Versioning == "digest" {
			return fmt.Errorf("range %q with versioning %s: tags in the order of their pushes have no numbers; remove one of them", p.Range, p.Versioning)
		}
	}
	if p.Major != "" && !slices.Contains(Majors, p.Major) {
		return fmt.Errorf("major %.80q is not known: there are %s", p.Major, strings.Join(Majors, ", "))
	}
	for _, g := range append(slices.Clone(p.Tags), p.Ignore...) {
		if err := image.CheckGlob(g); err != nil {
			return err
		}
	}
	if p.Cooldown < 0 {
		return fmt.Errorf("cooldown %s is negative: write a time such as 3d", p.Cooldown)
	}
	return nil
}

// major is the policy about major versions.
func (p Policy) major() string {
	if p.Major == "" {
		return "off"
	}
	return p.Major
}
