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
	s.conf.Shutdown(r.URL.Query().Get("stop") == "true")
	return nil
}

// text is the type of answers that are not JSON.
type text string

// metrics answers GET /v1/metrics.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	s.conf.Metrics.ServeHTTP(w, r)
	return nil
}
