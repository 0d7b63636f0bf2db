package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// maxFrame bounds a frame, in bytes.
const maxFrame = 2 << 20

// routes returns what the host may ask of the agent.
func (a *Agent) routes(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tether/recv", func(w http.ResponseWriter, r *http.Request) {
		f, err := readFrame(r)
		if err == nil {
			// Not the request's context: what has begun to be taken is taken.
			err = a.conversation(f.Session).accept(ctx, f)
		}
		a.answer(w, err)
	})
	return mux
}

// answer says whether a frame was taken. A frame that was not is sent again by the host,
// so that only trouble of the moment is an error of the server.
func (a *Agent) answer(w http.ResponseWriter, err error) {
	if err == nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	status := http.StatusServiceUnavailable
	if fault.KindOf(err) == fault.Invalid {
		status = http.StatusBadRequest
	}
	a.log.Warn("a frame was not taken", logattr.Err(err))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // who asked may be gone
}

func readFrame(r *http.Request) (api.Frame, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxFrame+1))
	if err != nil {
		return api.Frame{}, fault.Wrap(fault.Unavailable, err, "read a frame")
	}
	if len(data) > maxFrame {
		return api.Frame{}, fault.New(fault.Invalid, "the frame is larger than %d bytes", maxFrame)
	}
	return DecodeFrame(data)
}

// DecodeFrame reads a frame that is for an agent.
func DecodeFrame(data []byte) (api.Frame, error) {
	var f api.Frame
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fault.Wrap(fault.Invalid, err, "it is no frame")
	}
	switch {
	case f.V > 1:
		return f, fault.New(fault.Invalid, "a frame of version %d, and version 1 is known", f.V)
	case f.MsgID == "" || len(f.MsgID) > 256:
		return f, fault.New(fault.Invalid, "msg_id has from 1 to 256 bytes")
	case len(f.Session.Channel) > 64 || len(f.Session.ID) > 256 || f.Session.Channel == "":
		return f, fault.New(fault.Invalid, "session: the channel has from 1 to 64 bytes, the id at most 256")
	}
	return f, nil
}

// message is the payload of a user's message, and what the host says of one that it sends
// on a schedule.
type message struct {
	api.UserMessage

	Cron struct {
		ID         string `json:"id"`
		OnConflict string `json:"on_conflict"`
	} `json:"cron"`
}

// The limits of a user's message.
const (
	maxUserText   = 1 << 20
	maxUserImages = 20
)

func readMessage(f api.Frame) (message, error) {
	var m message
	if err := json.Unmarshal(f.Payload, &m); err != nil {
		return m, errors.New("the message cannot be read")
	}
	if len(m.Text) > maxUserText || len(m.Images) > maxUserImages {
		return m, errors.New("the message is too long, or has too many images")
	}
	return m, nil
}
