package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/internal/work"
)

// problem is err as the answer of a request that tried something, such as
// "pin app/web:1.4".
func (a *API) problem(err error, format string, args ...any) error {
	tried := fmt.Sprintf(format, args...)
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p
	}
	p := &wire.Problem{Status: http.StatusInternalServerError, Detail: err.Error()}
	if !strings.HasPrefix(p.Detail, tried) { // the room below may have said it
		p.Detail = tried + ": " + p.Detail
	}
	switch {
	case errors.As(err, new(*image.NameError)), errors.As(err, new(*usage.BadStatementError)):
		p.Status = http.StatusBadRequest
	case errors.Is(err, content.ErrRepositoryUnknown):
		p.Status, p.Hint = http.StatusNotFound, "`cairn image ls` lists the images there are"
	case errors.Is(err, content.ErrManifestUnknown):
		p.Status, p.Hint = http.StatusNotFound, "`cairn image ls --state all` lists the images there are, those that can be restored too"
	case errors.Is(err, content.ErrChanged):
		p.Status, p.Hint = http.StatusConflict, "somebody pushed, pinned or used it in the same moment; look again"
	case errors.Is(err, content.ErrTagTaken), errors.Is(err, content.ErrBlobInUse):
		p.Status = http.StatusConflict
	case errors.Is(err, content.ErrNoSpace), errors.Is(err, work.ErrNoSpace):
		p.Status, p.Hint = http.StatusInsufficientStorage, "make room on the disk of the data folder"
	case errors.Is(err, content.ErrReadOnly):
		p.Status, p.Hint = http.StatusServiceUnavailable, "make the data folder writable again"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		p.Status, p.Hint = http.StatusServiceUnavailable, "the server is stopping or the caller went away; try again"
	default:
		a.log.Error(tried, "err", err)
		p.Hint = "the server's log says more"
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// refuse is a problem that is not an error of a room.
func refuse(status int, hint, format string, args ...any) error {
	return &wire.Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), Hint: hint}
}
