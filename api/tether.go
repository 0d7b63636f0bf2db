package api

import (
	"encoding/json"
	"time"
)

// Frame is one message between the host and the agent in a VM.
type Frame struct {
	V       int       `json:"v"` // 1
	Type    FrameType `json:"type"`
	TS      time.Time `json:"ts"`
	Session Session   `json:"session"`
	MsgID   string    `json:"msg_id"`
	// Seq counts the stored frames of an instance, those of both directions and all sessions,
	// from 1 on and for ever. Deltas have none: they are passed on and not stored.
	Seq     int64           `json:"seq,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// Session is one conversation with an agent.
type Session struct {
	Channel string `json:"channel"` // where it is held: "host", "ui", "telegram", "cron"
	ID      string `json:"id"`
}

// FrameType says what a Frame is, and so which way it goes.
type FrameType string

// The types of frames that go to the agent.
const (
	FrameUserMessage FrameType = "user.message"   // UserMessage
	FrameCancel      FrameType = "control.cancel" // no payload: end what runs in the session
)

// The types of frames that come from the agent. The deltas have no Seq.
const (
	FramePresence       FrameType = "status.presence" // Presence
	FrameDelta          FrameType = "assistant.delta" // Delta
	FrameDone           FrameType = "assistant.done"  // AssistantMessage
	FrameReasoningDelta FrameType = "reasoning.delta" // Delta
	FrameReasoningDone  FrameType = "reasoning.done"  // AssistantMessage
	FrameAck            FrameType = "event.ack"       // Ack
)

// UserMessage is the payload of FrameUserMessage.
type UserMessage struct {
	Text   string    `json:"text"`
	Images []Picture `json:"images,omitempty"`
	User   *User     `json:"user,omitempty"`
}

// Picture is an image in a message: the file is kept in the workspace, see Blob.
type Picture struct {
	MediaType string `json:"media_type"`
	Blob      string `json:"blob"`
	Size      int64  `json:"size"` // bytes
}

// User is who wrote a message, as their channel names them.
type User struct {
	ID       string `json:"id"`
	Username string `json:"username,omitempty"`
	Name     string `json:"name,omitempty"`
}

// Presence is the payload of FramePresence.
type Presence struct {
	State string `json:"state"` // "thinking", "working", "idle"
}

// Delta is the payload of FrameDelta and FrameReasoningDelta: what is to be added to the
// text so far.
type Delta struct {
	Text    string `json:"text"`
	ReplyTo string `json:"reply_to,omitempty"`
}

// AssistantMessage is the payload of FrameDone and FrameReasoningDone: the whole text.
type AssistantMessage struct {
	Text    string    `json:"text"`
	Images  []Picture `json:"images,omitempty"`
	ReplyTo string    `json:"reply_to,omitempty"` // MsgID of the message it answers
	Error   string    `json:"error,omitempty"`    // why there is no answer, or only a part; Text says it too
}

// Ack is the payload of FrameAck: the agent has taken up a message.
type Ack struct {
	ReplyTo string `json:"reply_to"`
}

// TetherSent answers POST /v1/instances/{id}/tether, whose body is a Frame: 202.
type TetherSent struct {
	MsgID      string `json:"msg_id"`
	SessionID  string `json:"session_id"`
	IngressSeq int64  `json:"ingress_seq"` // the frame's Seq; answers have a higher one
}

// TetherPage answers GET /v1/instances/{id}/tether/poll.
type TetherPage struct {
	Frames   []Frame `json:"frames"`    // in the order of their Seq
	NextSeq  int64   `json:"next_seq"`  // after_seq of the next poll
	TimedOut bool    `json:"timed_out"` // nothing came within wait_ms
}

// Watermark is how far a channel's reader has read. It is the body of POST
// /v1/instances/{id}/tether/watermark, and the answer to it and to GET.
type Watermark struct {
	Channel string `json:"channel"`
	Seq     int64  `json:"seq"` // never goes back
}
