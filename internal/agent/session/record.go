package session

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
)

// Record is one line of a session's file.
type Record struct {
	TS      time.Time        `json:"ts"`
	Message *history.Message `json:"message,omitempty"`
	// Taken is the frame that brought Message, or that asked for an end.
	Taken *Taken `json:"taken,omitempty"`
	// End says that the message of this MsgID needs nothing more: it was answered.
	End string `json:"end,omitempty"`
	// Resumed says that work on the message of this MsgID goes on in another process.
	Resumed string `json:"resumed,omitempty"`
}

// Taken is a frame from the host.
type Taken struct {
	Type  api.FrameType `json:"type"`
	MsgID string        `json:"msg_id"`
	Seq   int64         `json:"seq"`
	User  *api.User     `json:"user,omitempty"`
}

// maxLine bounds a record, in bytes. What is longer was not written by this package.
const maxLine = 4 << 20

// encode returns a record as a line.
func encode(r Record) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a record of a session: %w", err)
	}
	if len(data) >= maxLine {
		return nil, fmt.Errorf("a record of a session has %d bytes, at most %d", len(data), maxLine)
	}
	return append(data, '\n'), nil
}

// decode reads a line. It is hostile input: whoever can write to the workspace can write
// to it.
func decode(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, err
	}
	if m := r.Message; m != nil {
		switch m.Role {
		case history.User, history.Assistant, history.Tool:
		default:
			return Record{}, fmt.Errorf("a message of %q", m.Role)
		}
	}
	return r, nil
}
