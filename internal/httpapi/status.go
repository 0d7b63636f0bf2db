package httpapi

import "net/http"

// status answers GET /v1/status.
func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	s.answer(w, r, http.StatusOK, s.conf.Status())
	return nil
}
