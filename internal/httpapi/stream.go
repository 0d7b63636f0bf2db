package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// lineStream is an answer of NDJSON, each line sent at once. After the client has
// gone sending does nothing.
type lineStream struct {
	s    *Server
	w    http.ResponseWriter
	gone bool
}

// stream begins an answer of NDJSON.
func (s *Server) stream(w http.ResponseWriter) *lineStream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	return &lineStream{s: s, w: w}
}

// send sends one line at once and reports whether the client is still there.
func (l *lineStream) send(v any) bool { return l.put(v) && l.flush() }

// put adds one line to what the next flush, a full buffer or the end sends.
func (l *lineStream) put(v any) bool {
	if l.gone {
		return false
	}
	b, err := json.Marshal(v)
	if err != nil {
		l.s.conf.Log.Error("encode a line", logattr.Err(err))
		return true
	}
	_, err = l.w.Write(append(b, '\n'))
	l.gone = err != nil
	return !l.gone
}

// flush sends what was put, and the head of the answer before there is a line.
func (l *lineStream) flush() bool {
	l.gone = l.gone || http.NewResponseController(l.w).Flush() != nil
	return !l.gone
}
