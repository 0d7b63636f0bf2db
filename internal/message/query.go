package message

import (
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// Query selects frames of one instance. Its zero value selects all that are stored.
type Query struct {
	After  int64 // only those with a higher Seq
	Before int64 // only those with a lower Seq, the newest of them; 0 is no bound
	Limit  int   // at most so many; 0 is none
	// Empty is any.
	Channel, Session string
	Types            []api.FrameType
	ReplyTo          string
}

// MaxPage bounds the payloads in the answer to one Query, in bytes: an answer that has
// reached it has fewer frames than its Limit. One frame always fits.
const MaxPage = 1 << 20

// Selects reports whether a frame that answers replyTo is among those that q selects,
// whatever its Seq.
func (q Query) Selects(f api.Frame, replyTo string) bool {
	return (q.Channel == "" || q.Channel == f.Session.Channel) &&
		(q.Session == "" || q.Session == f.Session.ID) &&
		(q.ReplyTo == "" || q.ReplyTo == replyTo) &&
		(len(q.Types) == 0 || slices.Contains(q.Types, f.Type))
}

// Page is the answer to a Query: frames in the order of their Seq.
type Page struct {
	Frames []api.Frame
	// Covered is the Seq up to which everything that q selects and is stored is in
	// Frames, or was before q.After. A Query behind it misses nothing.
	Covered int64
}

// Entry is something to be stored: a frame, or that an agent has taken some.
type Entry struct {
	Instance string
	// Frame is stored under the next Seq, unless one that goes the same way is stored
	// with that MsgID. If it has no Type there is none.
	Frame   api.Frame
	Ingress bool
	ReplyTo string
	// Taken is the Seq up to which the agent has taken all ingress frames; lower ones
	// change nothing.
	Taken int64
}

// Stored says what became of an Entry.
type Stored struct {
	Seq   int64 // the frame's
	Known bool  // it was stored before
	Err   error // why it is not stored
}

// Keep bounds what is kept of each instance. The oldest go; ingress frames that the
// agent has not taken stay in any case.
type Keep struct {
	Frames int64
	Bytes  int64 // of payloads
	Age    time.Duration
}

// Tether is what the store knows of an instance's tether.
type Tether struct {
	Instance string
	Seq      int64     // of the newest frame ever stored
	Waiting  int       // ingress frames that the agent has not taken
	Last     time.Time // when the newest frame was stored
}
