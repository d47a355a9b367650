package argo

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/Masterminds/sprig/v3"
	"github.com/expr-lang/expr"

	"cairn.dev/cairn/internal/workflow"
)

// functions are those that Argo gives to expressions beside the language's own.
func functions() []expr.Option {
	one := func(name string, f func(any) (any, error)) expr.Option {
		return expr.Function(name, func(args ...any) (any, error) {
			if len(args) != 1 {
				return nil, fmt.Errorf("%s takes one value, not %d", name, len(args))
			}
			return f(args[0])
		})
	}
	return []expr.Option{
		one("asInt", func(v any) (any, error) {
			f, err := asFloat(v)
			if _, number := v.(float64); number { // a text has to be one as it stands
				f = math.Trunc(f)
			}
			if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
				return nil, fmt.Errorf("asInt: %.40q is no whole number", fmt.Sprint(v))
			}
			return int(f), nil
		}),
		one("asFloat", func(v any) (any, error) { return asFloat(v) }),
		one("string", func(v any) (any, error) {
			n, err := normal(v, 0)
			if err != nil {
				return nil, err
			}
			return workflow.Text(n)
		}),
		one("toJson", func(v any) (any, error) {
			n, err := normal(v, 0)
			if err != nil {
				return nil, err
			}
			b, err := json.Marshal(n)
			return string(b), err
		}),
		expr.Function("jsonpath", func(args ...any) (any, error) {
			if len(args) != 2 {
				return nil, fmt.Errorf("jsonpath takes a text of JSON and a path")
			}
			text, _ := args[0].(string)
			path, _ := args[1].(string)
			var v any
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				return nil, fmt.Errorf("jsonpath: %.40q is not JSON: %w", text, err)
			}
			return jsonPath(v, path)
		}),
	}
}

func asFloat(v any) (float64, error) {
	switch v := v.(type) {
	case float64:
		return v, nil
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case string:
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
			return f, nil
		}
	}
	return 0, fmt.Errorf("%.40q is no number", fmt.Sprint(v))
}

func asTime(v any) (time.Time, error) {
	switch v := v.(type) {
	case time.Time:
		return v, nil
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no time", fmt.Sprint(v))
}

// jsonPath follows $.a.b[0]['c'][*]; more of JSONPath than that is refused.
func jsonPath(v any, path string) (any, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(path), "$")
	if !ok {
		return nil, fmt.Errorf("jsonpath: %.40q: a path begins with $", path)
	}
	for rest != "" {
		var key string
		switch {
		case strings.HasPrefix(rest, "["):
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, fmt.Errorf("jsonpath: %.40q: [ has no ]", path)
			}
			key, rest = rest[1:end], rest[end+1:]
			if n := len(key); n >= 2 && (key[0] == '\'' || key[0] == '"') && key[n-1] == key[0] {
				key = key[1 : n-1]
			}
		case strings.HasPrefix(rest, ".") && !strings.HasPrefix(rest, ".."):
			rest = rest[1:]
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			key, rest = rest[:end], rest[end:]
		default:
			return nil, fmt.Errorf("jsonpath: %.40q: only names, numbers and [*] are supported", path)
		}
		if key == "*" {
			list, ok := v.([]any)
			if !ok {
				return nil, fmt.Errorf("jsonpath: %.40q: [*] is of a list", path)
			}
			out := []any{}
			for _, e := range list {
				x, err := jsonPath(e, "$"+rest)
				if err != nil {
					return nil, err
				}
				out = append(out, x)
			}
			return out, nil
		}
		switch x := v.(type) {
		case map[string]any:
			if v, ok = x[key]; !ok {
				return nil, fmt.Errorf("jsonpath: %.40q: there is no %.40q", path, key)
			}
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < -len(x) || i >= len(x) {
				return nil, fmt.Errorf("jsonpath: %.40q: there is no entry %.40q", path, key)
			}
			v = x[(i+len(x))%len(x)]
		default:
			return nil, fmt.Errorf("jsonpath: %.40q: there is nothing at %.40q", path, key)
		}
	}
	return v, nil
}

// sprigNames are those of sprig's functions whose answer follows from what they
// are given and whose cost from its size.
var sprigNames = strings.Fields(`
	abbrev abbrevboth add add1 add1f addf adler32sum all any append atoi b32dec b32enc b64dec b64enc base biggest camelcase cat ceil chunk coalesce
	compact concat contains deepCopy deepEqual default dict dig dir div divf duration durationRound empty ext first float64 floor fromJson get has hasKey
	hasPrefix hasSuffix initial initials int int64 isAbs join kebabcase keys kindIs kindOf last len list lower max maxf merge min minf mod mul mulf
	mustToJson mustFromJson nospace omit osBase osClean osDir osExt pick pluck plural prepend quote regexFind regexFindAll regexMatch
	regexQuoteMeta regexReplaceAll regexReplaceAllLiteral regexSplit replace rest reverse round semver semverCompare sha1sum sha256sum sha512sum
	slice snakecase sortAlpha split splitList splitn squote sub subf substr swapcase ternary title toDecimal toJson toPrettyJson toRawJson toString
	toStrings trim trimAll trimPrefix trimSuffix trimall trunc typeIs typeOf uniq untitle upper urlJoin urlParse values without wrap wrapWith`)

// sprigFunctions are sprig's, those of them that are bounded and repeatable;
// times are those of UTC.
func sprigFunctions() map[string]any {
	from := sprig.TxtFuncMap()
	out := make(map[string]any, len(sprigNames)+4)
	for _, n := range sprigNames {
		if f, ok := from[n]; ok {
			out[n] = f
		}
	}
	out["date"] = func(layout string, v any) (string, error) {
		t, err := asTime(v)
		return t.UTC().Format(layout), err
	}
	out["dateInZone"] = func(layout string, v any, zone string) (string, error) {
		t, err := asTime(v)
		if err != nil {
			return "", err
		}
		at, err := time.LoadLocation(zone)
		if err != nil {
			return "", fmt.Errorf("dateInZone: %.40q is no time zone", zone)
		}
		return t.In(at).Format(layout), nil
	}
	out["repeat"] = func(n int, s string) (string, error) {
		if n < 0 || n > 0 && len(s) > maxText/n {
			return "", fmt.Errorf("repeat: %d times %d bytes is too much", n, len(s))
		}
		return strings.Repeat(s, n), nil
	}
	return out
}
