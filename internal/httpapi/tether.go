package httpapi

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/message"
)

// Tether is what the API needs of the messages between host and agents. *tether.Tether is
// one. A ref is an id or a handle.
type Tether interface {
	Send(ctx context.Context, ref string, f api.Frame) (api.TetherSent, error)
	Poll(ctx context.Context, ref string, q message.Query, wait time.Duration) (api.TetherPage, error)
	Stream(ctx context.Context, ref string, q message.Query, fresh bool) (iter.Seq2[api.Frame, error], error)
	Watermark(ctx context.Context, ref, channel string) (api.Watermark, error)
	SetWatermark(ctx context.Context, ref string, w api.Watermark) (api.Watermark, error)
}

// maxFrameBody is what the JSON of a frame may take: strings in it may be escaped.
const maxFrameBody = 2*message.MaxPayload + 64<<10

// frameQuery are the parameters that say which frames are wanted.
var frameQuery = []string{"channel", "session_id", "after_seq", "before_seq", "limit", "wait_ms", "types", "reply_to_msg_id"}

// sendFrame answers POST /v1/instances/{id}/tether.
func (s *Server) sendFrame(w http.ResponseWriter, r *http.Request) error {
	var f api.Frame
	if err := decode(r, &f); err != nil {
		return err
	}
	sent, err := s.conf.Tether.Send(r.Context(), r.PathValue("id"), f)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusAccepted, sent)
	return nil
}

// pollFrames answers GET /v1/instances/{id}/tether/poll.
func (s *Server) pollFrames(w http.ResponseWriter, r *http.Request) error {
	q, wait, err := frameQueryOf(r.URL.Query())
	if err != nil {
		return err
	}
	page, err := s.conf.Tether.Poll(r.Context(), r.PathValue("id"), q, wait)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, page)
	return nil
}

// streamFrames answers GET /v1/instances/{id}/tether/stream. Without after_seq it begins
// with what comes.
func (s *Server) streamFrames(w http.ResponseWriter, r *http.Request) error {
	q, _, err := frameQueryOf(r.URL.Query())
	if err != nil {
		return err
	}
	frames, err := s.conf.Tether.Stream(r.Context(), r.PathValue("id"), q, !r.URL.Query().Has("after_seq"))
	if err != nil {
		return err
	}
	out := s.stream(w)
	out.flush()
	for f, err := range frames {
		if err != nil {
			if r.Context().Err() == nil {
				out.send(api.ErrorOf(err))
			}
			return nil
		}
		if !out.send(f) {
			return nil
		}
	}
	return nil
}

func frameQueryOf(v url.Values) (q message.Query, wait time.Duration, err error) {
	for name := range v {
		if !slices.Contains(frameQuery, name) {
			return q, 0, fault.New(fault.Invalid, "there is no parameter %s", name).WithHint("it is one of: %s", strings.Join(frameQuery, ", "))
		}
	}
	q = message.Query{Channel: v.Get("channel"), Session: v.Get("session_id"), ReplyTo: v.Get("reply_to_msg_id")}
	number := func(name string, most int64) (n int64) {
		text := v.Get(name)
		if text == "" || err != nil {
			return 0
		}
		n, err = strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			err = fault.New(fault.Invalid, "parameter %s is not a number from 0 on: %.64q", name, text)
		}
		return min(n, most)
	}
	const highest = 1 << 62
	q.After, q.Before = number("after_seq", highest), number("before_seq", highest)
	q.Limit = int(number("limit", 1<<20))
	wait = time.Duration(number("wait_ms", 1<<30)) * time.Millisecond
	if err != nil {
		return q, 0, err
	}
	if q.Channel != "" {
		if err := message.CheckChannel(q.Channel); err != nil {
			return q, 0, err
		}
	}
	for name := range strings.SplitSeq(v.Get("types"), ",") {
		switch t := api.FrameType(strings.TrimSpace(name)); {
		case t == "":
		case !slices.Contains(message.Types(), t):
			return q, 0, fault.New(fault.Invalid, "there is no type of frames %.64q", name)
		default:
			q.Types = append(q.Types, t)
		}
	}
	return q, wait, nil
}

// watermark answers GET /v1/instances/{id}/tether/watermark.
func (s *Server) watermark(w http.ResponseWriter, r *http.Request) error {
	mark, err := s.conf.Tether.Watermark(r.Context(), r.PathValue("id"), r.URL.Query().Get("channel"))
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, mark)
	return nil
}

// setWatermark answers POST /v1/instances/{id}/tether/watermark.
func (s *Server) setWatermark(w http.ResponseWriter, r *http.Request) error {
	var mark api.Watermark
	if err := decode(r, &mark); err != nil {
		return err
	}
	mark, err := s.conf.Tether.SetWatermark(r.Context(), r.PathValue("id"), mark)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, mark)
	return nil
}
