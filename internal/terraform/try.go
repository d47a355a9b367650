package terraform

import (
	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// tryFunction is try(). hcl's own evaluates what it is given twice, so that
// try within try within try takes for ever, and forgets why a value is not
// known.
func tryFunction() function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "expressions", Type: customdecode.ExpressionClosureType},
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for _, a := range args {
				v, diags := customdecode.ExpressionClosureFromVal(a).Value()
				if diags.HasErrors() {
					continue
				}
				if !v.IsWhollyKnown() {
					// Whether it fails is not known either. Its type is not to be
					// relied upon, and its marks are.
					_, marks := v.UnmarkDeep()
					return cty.DynamicVal.WithMarks(marks), nil
				}
				return v, nil
			}
			return cty.NilVal, &cause{"function try: no expression succeeds"}
		},
	})
}

// canFunction is can(): whether an expression can be evaluated.
func canFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "expression", Type: customdecode.ExpressionClosureType}},
		Type:   function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v, diags := customdecode.ExpressionClosureFromVal(args[0]).Value()
			switch {
			case diags.HasErrors():
				return cty.False, nil
			case !v.IsWhollyKnown():
				_, marks := v.UnmarkDeep()
				return cty.UnknownVal(cty.Bool).WithMarks(marks), nil
			}
			return cty.True, nil
		},
	})
}
