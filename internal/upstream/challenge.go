package upstream

import (
	"net/http"
	"strings"
)

// A challenge is one way to sign on that a 401 offers (RFC 9110, 11.6.1).
type challenge struct {
	scheme string            // lower case
	params map[string]string // keys in lower case
}

// challenges reads every WWW-Authenticate header. What cannot be read is left
// out: another challenge may do.
func challenges(h http.Header) []challenge {
	var out []challenge
	for _, line := range h.Values("WWW-Authenticate") {
		out = append(out, parseChallenges(line)...)
	}
	return out
}

// parseChallenges reads one header, which may hold several challenges. A word
// followed by '=' is a parameter of the one before, any other begins the next.
func parseChallenges(s string) []challenge {
	var out []challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return out
		}
		word, rest := token(s)
		if word == "" {
			return out // nonsense: nothing after it can be trusted
		}
		after := strings.TrimLeft(rest, " \t")
		if !strings.HasPrefix(after, "=") || len(out) == 0 {
			out = append(out, challenge{strings.ToLower(word), map[string]string{}})
			s = rest
			continue
		}
		var value string
		value, s = parameterValue(strings.TrimLeft(after[1:], " \t"))
		params := out[len(out)-1].params
		if key := strings.ToLower(word); params[key] == "" {
			params[key] = value
		}
	}
}

// token takes the token (RFC 9110, 5.6.2) that s begins with.
func token(s string) (word, rest string) {
	i := 0
	for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) >= 0) {
		i++
	}
	return s[:i], s[i:]
}

// parameterValue takes a token or a quoted string.
func parameterValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, ", \t")
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
