package httpapi

import (
	"net/http"

	"github.com/xfeldman/aegisvm/api"
)

// status answers GET /v1/status.
func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	s.answer(w, r, http.StatusOK, s.conf.Status())
	return nil
}

// shutdown answers POST /v1/shutdown. The answer comes before the end: who waits for
// that waits for the daemon's lock.
func (s *Server) shutdown(w http.ResponseWriter, r *http.Request) error {
	s.answer(w, r, http.StatusOK, api.Outcome{Status: "stopping"})
	s.conf.Shutdown()
	return nil
}
