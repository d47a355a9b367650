package argo_test

import (
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/workflow"
)

func problems(ps []workflow.Problem) string {
	var b strings.Builder
	for _, p := range ps {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}
