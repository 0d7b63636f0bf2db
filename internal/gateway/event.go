package gateway

import (
	"encoding/json"
	"fmt"

	"github.com/xfeldman/aegisvm/api"
)

// Event is one thing that happens in a session, in the form in which channels meet it.
type Event struct {
	Type api.FrameType
	Seq  int64 // of what is stored: answers; else 0
	// Delta is what Type FrameDelta adds to the answer under way.
	Delta api.Delta
	// Answer is what Type FrameDone says.
	Answer api.AssistantMessage
	// State is that of Type FramePresence: "thinking", "working", "idle".
	State string
	// Local is what the channel itself has posted (Line.Post); Type is "" then.
	Local any
}

// wanted are the types of frames that channels show.
var wanted = []api.FrameType{api.FramePresence, api.FrameDelta, api.FrameDone}

// The limits of what the agent may say at once.
const (
	maxImages  = 20
	maxPreview = 256 << 10 // bytes of an answer that is not done yet
)

// decode returns the Event that a frame is. The frame comes from a guest.
func decode(f api.Frame) (Event, error) {
	e := Event{Type: f.Type, Seq: f.Seq}
	var into any
	var state api.Presence
	switch f.Type { //nolint:exhaustive // others are not asked for
	case api.FramePresence:
		into = &state
	case api.FrameDelta:
		into = &e.Delta
	case api.FrameDone:
		into = &e.Answer
	default:
		return e, fmt.Errorf("a frame of type %.40q", f.Type)
	}
	if err := json.Unmarshal(f.Payload, into); err != nil {
		return e, fmt.Errorf("decode a frame of type %s: %w", f.Type, err)
	}
	e.State = state.State
	if len(e.Answer.Images) > maxImages {
		e.Answer.Images = e.Answer.Images[:maxImages]
	}
	return e, nil
}

// merge adds e to the events that wait. Deltas of one answer become one.
func merge(waiting []Event, e Event) []Event {
	if n := len(waiting); n > 0 && e.Type == api.FrameDelta {
		last := &waiting[n-1]
		if last.Type == api.FrameDelta && last.Delta.ReplyTo == e.Delta.ReplyTo {
			if len(last.Delta.Text) < maxPreview {
				last.Delta.Text += e.Delta.Text
			}
			return waiting
		}
	}
	return append(waiting, e)
}
