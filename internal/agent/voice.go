package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/guestapi"
	"github.com/xfeldman/aegisvm/internal/agent/loop"
)

// voice sends the frames of a run to the host, in their order, from a goroutine of its own:
// a model is never held up by it. While one frame is on its way, what is said meanwhile
// becomes one delta. Deltas are told once; an answer is sent until the host has it.
//
// All that is told as text is, put together, the text of the answer.
type voice struct {
	host    *guestapi.Client
	key     api.Session
	replyTo string
	ctx     context.Context //nolint:containedctx // ends when the agent does
	ended   chan struct{}

	mu     sync.Mutex
	queue  []api.Frame
	more   chan struct{} // holds one: the queue has grown, or is closed
	closed bool
	failed bool

	said bool // some text was told
	gap  bool // a paragraph is due before the next text
}

func newVoice(ctx context.Context, host *guestapi.Client, key api.Session, replyTo string) *voice {
	v := &voice{host: host, key: key, replyTo: replyTo, ctx: ctx, ended: make(chan struct{}), more: make(chan struct{}, 1)}
	go func() {
		defer close(v.ended)
		v.run()
	}()
	return v
}

// text tells more of the answer.
func (v *voice) text(s string) {
	if v.gap && v.said {
		s = loop.Separator + s
	}
	v.gap, v.said = false, true
	v.put(api.FrameDelta, api.Delta{Text: s, ReplyTo: v.replyTo})
}

// paragraph says that the next text is a paragraph of its own.
func (v *voice) paragraph() { v.gap = true }

// say tells something as a paragraph of its own.
func (v *voice) say(s string) {
	v.paragraph()
	v.text(s)
	v.paragraph()
}

// reasoning tells what the model thinks.
func (v *voice) reasoning(s string) {
	v.put(api.FrameReasoningDelta, api.Delta{Text: s, ReplyTo: v.replyTo})
}

// thought tells all that the model thought before an answer.
func (v *voice) thought(s string) {
	v.put(api.FrameReasoningDone, api.AssistantMessage{Text: s, ReplyTo: v.replyTo})
}

func (v *voice) ack() { v.put(api.FrameAck, api.Ack{ReplyTo: v.replyTo}) }

func (v *voice) presence(state string) { v.put(api.FramePresence, api.Presence{State: state}) }

// done tells the whole answer.
func (v *voice) done(m api.AssistantMessage) { v.put(api.FrameDone, m) }

// close waits until all is sent, and reports whether it was. Later calls change nothing.
func (v *voice) close() bool {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.signal()
	<-v.ended
	return !v.failed
}

func (v *voice) signal() {
	select {
	case v.more <- struct{}{}:
	default:
	}
}

// put adds a frame to the queue. Deltas of a kind that are next to each other become one.
func (v *voice) put(kind api.FrameType, payload any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.queue); n > 0 && v.queue[n-1].Type == kind && (kind == api.FrameDelta || kind == api.FrameReasoningDelta) {
		var before api.Delta
		if d, ok := payload.(api.Delta); ok && json.Unmarshal(v.queue[n-1].Payload, &before) == nil {
			d.Text = before.Text + d.Text
			v.queue = v.queue[:n-1]
			payload = d
		}
	}
	f, err := newFrame(kind, v.key, v.replyTo, payload)
	if err != nil { // what is put here always encodes
		return
	}
	v.queue = append(v.queue, f)
	v.signal()
}

// next waits for a frame. It reports false when there will be none any more.
func (v *voice) next() (api.Frame, bool) {
	for {
		v.mu.Lock()
		if len(v.queue) > 0 {
			f := v.queue[0]
			v.queue = v.queue[1:]
			v.mu.Unlock()
			return f, true
		}
		closed := v.closed
		v.mu.Unlock()
		if closed {
			return api.Frame{}, false
		}
		select {
		case <-v.more:
		case <-v.ctx.Done():
			return api.Frame{}, false
		}
	}
}

// kept are the frames that the host has to have. The others are of use now or never.
var kept = []api.FrameType{api.FrameDone, api.FrameAck, api.FrameReasoningDone}

func (v *voice) run() {
	for {
		f, ok := v.next()
		if !ok {
			break
		}
		if slices.Contains(kept, f.Type) {
			_ = v.host.Send(v.ctx, f) // one that the host refuses for good would be refused again
		} else {
			_ = v.host.Tell(v.ctx, f) // of use now or never
		}
	}
	v.failed = v.ctx.Err() != nil
}

// newFrame makes a frame. The id of one that answers a message follows from that message,
// so that it is the same when it is sent again, by whichever agent.
func newFrame(kind api.FrameType, key api.Session, replyTo string, payload any) (api.Frame, error) {
	raw, err := json.Marshal(payload)
	if err != nil {
		return api.Frame{}, err
	}
	id := randomID()
	if replyTo != "" && (kind == api.FrameDone || kind == api.FrameAck) {
		sum := sha256.Sum256([]byte(key.Channel + "\x00" + key.ID + "\x00" + replyTo + "\x00" + string(kind)))
		id = "re-" + hex.EncodeToString(sum[:12])
	}
	return api.Frame{V: 1, Type: kind, TS: time.Now().UTC(), Session: key, MsgID: id, Payload: raw}, nil
}
