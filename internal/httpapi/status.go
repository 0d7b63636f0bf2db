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

// shutdown answers POST /v1/shutdown: an Outcome at once, then the changes of state that
// the shutdown brings about. The daemon ends after the last: who waits for that waits
// for its lock.
func (s *Server) shutdown(w http.ResponseWriter, r *http.Request) error {
	changes, stop := s.conf.Instances.Watch()
	defer stop()
	s.conf.Shutdown(r.URL.Query().Get("stop") == "true")
	out := s.stream(w)
	if out.send(api.Outcome{Status: "stopping"}) {
		out.events(r.Context(), changes)
	}
	return nil
}

// text is the type of answers that are not JSON.
type text string

// metrics answers GET /v1/metrics.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	s.conf.Metrics.ServeHTTP(w, r)
	return nil
}
