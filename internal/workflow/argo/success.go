package argo

import (
	"errors"
	"fmt"
	"strings"

	"github.com/expr-lang/expr"

	"cairn.dev/cairn/internal/workflow"
)

// CheckSuccess reports whether s can decide about the answer of an http
// template.
func CheckSuccess(s string) error {
	_, err := success(s)
	return err
}

func success(s string) (*expression, error) {
	if len(s) > maxExpr {
		return nil, fmt.Errorf("an expression of %d bytes: the limit is %d", len(s), maxExpr)
	}
	x := &expression{text: s}
	opts := append([]expr.Option{expr.Env(map[string]any{}), expr.AllowUndefinedVariables(), expr.MaxNodes(2000), expr.DisableBuiltin("now"),
		expr.DisableBuiltin("repeat"), expr.Patch(&visitor{place: &place{}})}, functions()...)
	var err error
	if x.prog, err = compileExpr(s, opts); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return nil, fmt.Errorf("%.100q: %s", s, first)
	}
	return x, nil
}

// Success decides about the answer to the request of an http template, by its
// successCondition ([task.HTTP].Success), or, where there is none, by its
// status. An expression sees response.statusCode, .body and .headers.
func Success(condition string, status int, body string, headers map[string]string) (bool, error) {
	if condition == "" {
		return status >= 200 && status < 300, nil
	}
	x, err := success(condition)
	if err != nil {
		return false, err
	}
	h := map[string]any{}
	for k, v := range headers {
		h[k] = v
	}
	steps := 0
	v, err := runExpr(x.prog, map[string]any{
		"response": map[string]any{"statusCode": status, "body": body, "headers": h}, "sprig": sprigFunctions(),
		stepName: func() (bool, error) {
			if steps++; steps > maxSteps {
				return false, errors.New("it takes too many steps")
			}
			return true, nil
		},
	})
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return false, fmt.Errorf("successCondition %.100q: %s", condition, first)
	}
	if b, ok := v.(bool); ok {
		return b, nil
	}
	return false, fmt.Errorf("successCondition %.100q is %.40q, neither true nor false", condition, fmt.Sprint(v))
}

var _ workflow.Leaf = (*leaf)(nil)
