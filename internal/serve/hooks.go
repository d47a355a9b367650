package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/rest"
)

// hookTime is how long the body of a webhook may take.
const hookTime = 20 * time.Second

// hooks answers what forges and registries tell, under /hooks/. Who sends them
// has no account here: the secret of each says who it is.
func (s *Server) hooks(mux *http.ServeMux) error {
	if s.bump == nil {
		return nil
	}
	mux.HandleFunc("POST /hooks/forge/{name}", s.forgeHook)
	byName := map[string]config.Hook{}
	for _, h := range s.cfg.Bump.Webhooks {
		byName[h.Name] = h
	}
	registry := func(w http.ResponseWriter, r *http.Request) {
		h, ok := byName[r.PathValue("name")]
		if !ok {
			plain(w, http.StatusNotFound, "no webhook of that name is configured: see bump.webhooks\n")
			return
		}
		s.registryHook(w, r, h)
	}
	mux.HandleFunc("POST /hooks/registry/{name}", registry)
	mux.HandleFunc("POST /hooks/registry/{name}/{token}", registry)
	return nil
}

func (s *Server) forgeHook(w http.ResponseWriter, r *http.Request) {
	body, ok := readHook(w, r, forge.MaxHook)
	if !ok {
		return
	}
	err := s.bump.Hook(r.Context(), r.PathValue("name"), r.Header.Get, body)
	switch {
	case errors.Is(err, bump.ErrUnknown):
		plain(w, http.StatusNotFound, err.Error()+"\n")
	case errors.Is(err, forge.ErrSignature):
		s.log.Warn("a webhook was refused", "forge", r.PathValue("name"), "remote", r.RemoteAddr, "err", err)
		plain(w, http.StatusUnauthorized, err.Error()+"\n")
	case err != nil:
		plain(w, http.StatusBadRequest, err.Error()+"\n")
	default:
		plain(w, http.StatusAccepted, "accepted\n")
	}
}

func (s *Server) registryHook(w http.ResponseWriter, r *http.Request, h config.Hook) {
	body, ok := readHook(w, r, catalog.MaxHook)
	if !ok {
		return
	}
	secret, err := rest.Secret{File: h.SecretFile}.Read()
	if err != nil {
		s.log.Error("a webhook cannot be verified", "webhook", h.Name, "err", err)
		plain(w, http.StatusInternalServerError, "the secret of this webhook cannot be read here\n")
		return
	}
	pushes, err := catalog.Hook{Kind: h.Kind, Host: h.Host, Secret: secret}.Read(r.Header, r.PathValue("token"), body)
	switch {
	case errors.Is(err, catalog.ErrHookSecret):
		s.log.Warn("a webhook was refused", "webhook", h.Name, "remote", r.RemoteAddr, "err", err)
		plain(w, http.StatusUnauthorized, err.Error()+"\n")
	case err != nil:
		plain(w, http.StatusBadRequest, err.Error()+"\n")
	default:
		// What was remembered of these tags is old now.
		for _, p := range pushes {
			s.remote.Forget(p.Repository)
		}
		s.pushes.Put(pushes...)
		plain(w, http.StatusAccepted, fmt.Sprintf("%d pushes\n", len(pushes)))
	}
}

func readHook(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, bool) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(hookTime)) // the kernel's clock; not every connection has one
	var b bytes.Buffer
	if _, err := io.Copy(&b, http.MaxBytesReader(w, r.Body, limit)); err != nil {
		status, why := http.StatusBadRequest, "the body broke off"
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			status, why = http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", limit)
		}
		plain(w, status, why+"\n")
		return nil, false
	}
	_ = rc.SetReadDeadline(time.Time{})
	return b.Bytes(), true
}
