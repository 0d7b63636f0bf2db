package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// errMethod makes an Invalid request a 405, as HTTP wants it.
var errMethod = errors.New("method not allowed")

func statusOf(err error) int {
	switch {
	case errors.Is(err, errMethod):
		return http.StatusMethodNotAllowed
	case isTooLarge(err):
		return http.StatusRequestEntityTooLarge
	}
	if _, wake := errors.AsType[*instance.WakeError](err); wake {
		return http.StatusServiceUnavailable // whatever the reason; it is in the code
	}
	return api.StatusOf(fault.KindOf(err))
}

func isTooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}

// answerError is where errors of requests end: the caller gets all of them, the log
// those that are the daemon's own.
func (s *Server) answerError(w http.ResponseWriter, r *http.Request, err error) {
	if k := fault.KindOf(err); k == fault.Internal {
		s.conf.Log.ErrorContext(r.Context(), "request", logattr.Request(r.Method, r.URL.Path), logattr.Err(err))
	}
	s.answer(w, r, statusOf(err), api.ErrorOf(err))
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		s.conf.Log.ErrorContext(r.Context(), "encode an answer", logattr.Request(r.Method, r.URL.Path), logattr.Err(err))
		status, b = http.StatusInternalServerError, []byte(`{"error":"an answer could not be encoded","code":"internal"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that has gone needs no answer
}
