package guestapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

// errMethod makes an Invalid request a 405, as HTTP wants it.
var errMethod = errors.New("method not allowed")

func statusOf(err error) int {
	if _, many := errors.AsType[tooManyError](err); many {
		return http.StatusTooManyRequests
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return http.StatusRequestEntityTooLarge
	}
	if _, wake := errors.AsType[*instance.WakeError](err); wake {
		return http.StatusServiceUnavailable
	}
	if errors.Is(err, errMethod) {
		return http.StatusMethodNotAllowed
	}
	return api.StatusOf(fault.KindOf(err))
}

// errorOf returns the wire form of err. What is the host's own business stays there.
func errorOf(err error) api.GuestError {
	kind := fault.KindOf(err)
	body := api.GuestErrorBody{Message: err.Error(), Code: string(kind), Hint: fault.HintOf(err)}
	switch statusOf(err) {
	case http.StatusTooManyRequests:
		body.Code = "rate_limited"
	case http.StatusRequestEntityTooLarge:
		body.Code = string(fault.TooLarge)
	case http.StatusInternalServerError:
		body.Message, body.Hint = "the host could not do it", "the log of aegisd has the details"
	}
	return api.GuestError{Error: body}
}

func answer(w http.ResponseWriter, status int, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that has gone needs no answer
	return nil
}

// decode reads a request's body into out: one JSON value without unknown fields. None at
// all is an empty one where that will do.
func decode(c *call, out any, optional bool) error {
	body, err := io.ReadAll(c.r.Body)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "read the request") // what is left has the time that is left
	}
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{}) // or it would end the request's context later
	if len(bytes.TrimSpace(body)) == 0 && optional {
		return nil
	}
	if err := strictjson.Decode(body, out); err != nil {
		return fault.New(fault.Invalid, "the request is not what it is to be: %v", strictjson.Explain(body, err))
	}
	return nil
}

// lines is an answer of NDJSON, each line sent at once.
type lines struct {
	w    http.ResponseWriter
	gone bool
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	l := &lines{w: w}
	l.flush()
	return l
}

// put adds a line to what the next flush sends.
func (l *lines) put(v any) bool {
	if l.gone {
		return false
	}
	b, err := json.Marshal(v)
	if err == nil {
		_, err = l.w.Write(append(b, '\n'))
	}
	l.gone = err != nil
	return !l.gone
}

func (l *lines) flush() bool {
	l.gone = l.gone || http.NewResponseController(l.w).Flush() != nil
	return !l.gone
}

// send sends one line at once.
func (l *lines) send(v any) { _ = l.put(v) && l.flush() }
