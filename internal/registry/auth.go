package registry

import (
	"errors"
	"math"
	"net/http"
	"strconv"

	"cairn.dev/cairn/internal/access"
)

// authorise finds out who calls and whether they may. Where other credentials
// would help, it has set the challenge that leads to them.
func (h *handler) authorise(c *call, action access.Action) error {
	if h.access == nil {
		return nil
	}
	who, err := h.access.Authenticate(c.r)
	if err != nil {
		return h.refuse(c, action, err)
	}
	c.who = who
	switch c.kind {
	case kindPing:
		if who.MustLogIn() {
			h.challenge(c, action)
			return failf(http.StatusUnauthorized, codeUnauthorized, "log in first, with an account made by 'cairn token create'")
		}
		return nil
	case kindCatalog:
		if len(who.Scope(access.Pull)) > 0 {
			return nil
		}
		if who.Via == access.ViaToken {
			// No scope of a token is for listing: asking for one would go
			// round in circles.
			return failf(http.StatusForbidden, codeDenied,
				"this access token is for no repository: list with the account's secret (Basic) or with 'cairn image ls'")
		}
	default:
		if who.Can(action, c.repository) {
			return nil
		}
	}
	if who.MayRetry(action, c.repository) {
		h.challenge(c, action)
		return failf(http.StatusUnauthorized, codeUnauthorized, "log in as an account that may %s %s", action, c.what())
	}
	return failf(http.StatusForbidden, codeDenied,
		"account %q may not %s %s: an administrator can make an account that may with 'cairn token create'", who.Name, action, c.what())
}

// refuse answers credentials that are wrong.
func (h *handler) refuse(c *call, action access.Action, err error) error {
	var e *access.Error
	if errors.As(err, &e) && e.Status == http.StatusTooManyRequests {
		wait := max(int(math.Ceil(e.RetryAfter.Seconds())), 1)
		c.w.Header()["Retry-After"] = []string{strconv.Itoa(wait)}
		return failf(e.Status, codeTooMany, "%v", err)
	}
	h.challenge(c, action)
	return failf(http.StatusUnauthorized, codeUnauthorized, "the credentials are not accepted: %v", err)
}

// what names the thing a right is missing for.
func (c *call) what() string {
	if c.repository == "" {
		return "anything"
	}
	return c.repository
}

func (h *handler) challenge(c *call, action access.Action) {
	head := c.w.Header()
	head["Docker-Distribution-Api-Version"] = valVersion
	switch {
	case c.repository == "":
		h.access.Challenge(head, c.r, "")
	case action == access.Push:
		// A push begins with looking for what is there already.
		h.access.Challenge(head, c.r, c.repository, access.Pull, access.Push)
	default:
		h.access.Challenge(head, c.r, c.repository, action)
	}
}

// mayPull reports whether the caller may read another repository.
func (h *handler) mayPull(c *call) func(repository string) bool {
	return func(repository string) bool {
		return h.access == nil || c.who.Can(access.Pull, repository)
	}
}

// actor is the name under which pulls and deletions are noted.
func (c *call) actor() string {
	if c.who == nil {
		return "anonymous"
	}
	return c.who.Name
}
