package tether

import (
	"encoding/json"
	"slices"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/message"
)

// work is what an agent has taken and not answered. It is a plain value: who has it guards
// it.
type work struct{ open []opened }

// opened is a user's message that an agent works on.
type opened struct {
	seq     int64
	msgID   string
	session api.Session
}

// note takes account of a frame that the agent has taken, or has sent.
func (w *work) note(f api.Frame) {
	switch f.Type { //nolint:exhaustive // the others begin and end nothing
	case api.FrameUserMessage:
		w.open = append(w.open, opened{f.Seq, f.MsgID, f.Session})
	case api.FrameDone:
		var m api.AssistantMessage
		if json.Unmarshal(f.Payload, &m) == nil { // or it would not have been taken in
			w.answered(f.Session, m.ReplyTo)
		}
	case api.FramePresence:
		var p api.Presence
		if json.Unmarshal(f.Payload, &p) == nil && p.State == "idle" { // as above
			w.close(f.Session, 1<<62)
		}
	}
}

// answered ends the work on a message, and on those of its session before it, which it
// took the place of. An answer to nothing in particular is one to all.
func (w *work) answered(s api.Session, replyTo string) {
	if replyTo == "" {
		w.close(s, 1<<62)
		return
	}
	if i := slices.IndexFunc(w.open, func(o opened) bool { return o.msgID == replyTo }); i >= 0 {
		w.close(w.open[i].session, w.open[i].seq)
	}
}

func (w *work) forget(seq int64) {
	w.open = slices.DeleteFunc(w.open, func(o opened) bool { return o.seq == seq })
}

func (w *work) close(s api.Session, upTo int64) {
	w.open = slices.DeleteFunc(w.open, func(o opened) bool { return o.session == s && o.seq <= upTo })
}

func isIngress(f api.Frame) bool {
	return f.Type == api.FrameUserMessage || f.Type == api.FrameCancel
}

// ring is the newest deltas of an instance. It is a plain value, as work is.
type ring struct {
	limit, limitBytes int

	items []delta
	end   int64 // how many there ever were; the last of items is number end-1
	bytes int
}

// delta is a frame that is passed on and not stored.
type delta struct {
	frame   api.Frame
	replyTo string
	number  int64 // of all that ever came, from 0 on
	at      int64 // Seq of the newest stored frame when it came
}

func (r *ring) push(d delta) {
	d.number = r.end
	r.items = append(r.items, d)
	r.end++
	r.bytes += len(d.frame.Payload)
	for len(r.items) > r.limit || r.bytes > r.limitBytes && len(r.items) > 1 {
		r.bytes -= len(r.items[0].frame.Payload)
		r.items[0] = delta{}
		r.items = r.items[1:]
	}
}

// since returns the deltas from number n on that are still there.
func (r *ring) since(n int64) []delta {
	first := r.end - int64(len(r.items))
	if n >= r.end {
		return nil
	}
	return slices.Clone(r.items[max(0, n-first):])
}

// after returns the number of the first delta that came behind the stored frame seq.
func (r *ring) after(seq int64) int64 {
	for _, d := range r.items {
		if d.at >= seq {
			return d.number
		}
	}
	return r.end
}

// wantsLive reports whether a query is for deltas too.
func wantsLive(q message.Query) bool { return slices.ContainsFunc(q.Types, message.Live) }
