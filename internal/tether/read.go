package tether

import (
	"context"
	"iter"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/message"
)

// Bounds of a poll.
const (
	DefaultLimit = 50
	MaxLimit     = 200
	MaxWait      = 30 * time.Second
)

// Poll returns frames that q selects. Where there is none it waits for one, at most for
// wait. Deltas are among them if q.Types names them: those that come while it waits.
func (t *Tether) Poll(ctx context.Context, ref string, q message.Query, wait time.Duration) (api.TetherPage, error) {
	l, _, err := t.find(ref)
	if err != nil {
		return api.TetherPage{}, err
	}
	if q.Limit <= 0 {
		q.Limit = DefaultLimit
	}
	q.Limit = min(q.Limit, MaxLimit)
	r := &reader{tether: t, line: l, q: q, live: wantsLive(q), next: l.deltas()}
	deadline := time.NewTimer(min(wait, MaxWait))
	defer deadline.Stop()
	for over := wait <= 0 || q.Before > 0; ; {
		came := l.signal()
		frames, err := r.look(ctx)
		page := api.TetherPage{Frames: frames, NextSeq: r.q.After}
		if err != nil || len(frames) > 0 {
			return page, err
		}
		if over {
			page.Frames, page.TimedOut = []api.Frame{}, true
			return page, nil
		}
		if over, err = t.wait(ctx, l, came, deadline.C); err != nil {
			return page, err
		}
	}
}

// Stream returns frames that q selects as they come, until ctx, the instance or the daemon
// ends. Without types deltas are among them. It begins behind q.After; if fresh is set, with
// what comes from now on.
func (t *Tether) Stream(ctx context.Context, ref string, q message.Query, fresh bool) (iter.Seq2[api.Frame, error], error) {
	l, v, err := t.find(ref)
	if err != nil {
		return nil, err
	}
	if q.Before > 0 {
		return nil, fault.New(fault.Invalid, "a stream has no before_seq").WithHint("poll for what was before")
	}
	q.Limit = MaxLimit
	r := &reader{tether: t, line: l, q: q, live: len(q.Types) == 0 || wantsLive(q), next: l.deltas()}
	if fresh {
		// The newest there is: what it covers is what was before.
		page, err := t.rows.Frames(ctx, string(v.ID), message.Query{Before: 1 << 62, Limit: 1})
		if err != nil {
			return nil, err
		}
		if n := len(page.Frames); n > 0 {
			r.q.After = page.Frames[n-1].Seq
		}
	} else {
		r.next = l.deltasAfter(q.After)
	}
	return r.all(ctx), nil
}

// reader is one who reads: where it is, and what it wants.
type reader struct {
	tether *Tether
	line   *line
	q      message.Query // q.After is how far it has read
	live   bool          // it wants deltas
	next   int64         // number of the next delta
}

// all returns all that comes.
func (r *reader) all(ctx context.Context) iter.Seq2[api.Frame, error] {
	return func(yield func(api.Frame, error) bool) {
		for {
			came, before := r.line.signal(), r.q.After
			frames, err := r.look(ctx)
			for _, f := range frames {
				if !yield(f, nil) {
					return
				}
			}
			if err == nil && (len(frames) > 0 || r.q.After > before) {
				continue
			}
			if err == nil {
				_, err = r.tether.wait(ctx, r.line, came, nil)
			}
			if err != nil {
				yield(api.Frame{}, err)
				return
			}
		}
	}
}

// look returns what there is now, deltas among the frames where they came, and moves on
// behind it.
func (r *reader) look(ctx context.Context) ([]api.Frame, error) {
	page, err := r.tether.rows.Frames(ctx, string(r.line.id), r.q)
	if err != nil {
		return nil, err
	}
	var deltas []delta
	if r.live { // behind the frames: so all are there that came before one of these
		deltas = r.line.deltasSince(r.next)
	}
	r.q.After = page.Covered
	return r.merge(page, deltas), nil
}

// merge puts deltas between frames. Those behind what the page covers wait for the next.
func (r *reader) merge(page message.Page, deltas []delta) []api.Frame {
	stored := page.Frames
	var out []api.Frame
	for _, d := range deltas {
		if d.at > page.Covered {
			break
		}
		for len(stored) > 0 && stored[0].Seq <= d.at {
			out, stored = append(out, stored[0]), stored[1:]
		}
		if r.q.Selects(d.frame, d.replyTo) {
			out = append(out, d.frame)
		}
		r.next = d.number + 1
	}
	return append(out, stored...)
}

// wait waits until came is closed, or over fires, and tells which.
func (t *Tether) wait(ctx context.Context, l *line, came <-chan struct{}, over <-chan time.Time) (timedOut bool, err error) {
	select {
	case <-came:
		return false, nil
	case <-over:
		return true, nil
	case <-l.gone:
		return false, errGone(l.id)
	case <-t.ending.Done():
		return false, errClosing
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// Watermark returns how far a channel's reader has read.
func (t *Tether) Watermark(ctx context.Context, ref, channel string) (api.Watermark, error) {
	id, err := t.marked(ref, channel)
	if err != nil {
		return api.Watermark{}, err
	}
	seq, err := t.rows.Watermark(ctx, string(id), channel)
	return api.Watermark{Channel: channel, Seq: seq}, err
}

// SetWatermark says how far a channel's reader has read: at most to the newest frame. What
// is further already stays.
func (t *Tether) SetWatermark(ctx context.Context, ref string, w api.Watermark) (api.Watermark, error) {
	if w.Seq < 0 {
		return w, fault.New(fault.Invalid, "a watermark cannot be %d", w.Seq)
	}
	id, err := t.marked(ref, w.Channel)
	if err != nil {
		return w, err
	}
	w.Seq, err = t.rows.RaiseWatermark(ctx, string(id), w.Channel, w.Seq)
	return w, err
}

func (t *Tether) marked(ref, channel string) (instance.ID, error) {
	if err := message.CheckChannel(channel); err != nil {
		return "", err
	}
	_, v, err := t.find(ref)
	return v.ID, err
}
