// Package gatewaytest has a daemon with one agent, for tests of the gateway: the tether,
// pictures and execs, in memory or on a unix socket (Serve).
package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// Daemon is the daemon, and the agent behind it. It implements gateway.Agent. Its methods
// may be called together.
type Daemon struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	frames  []api.Frame   // stored, both ways
	live    []api.Frame   // deltas; each stands behind a number of stored frames
	behind  []int64
	ids     map[string]int64
	marks   map[string]int64
	blobs   map[string][]byte
	down    bool
	refuse  error
	execs   []string
	reading int
}

// New returns a daemon whose agent has said nothing.
func New() *Daemon {
	return &Daemon{changed: make(chan struct{}), ids: map[string]int64{}, marks: map[string]int64{}, blobs: map[string][]byte{}}
}

var errDown = fault.New(fault.Unavailable, "the test's daemon is down")

// tell says that something has changed. The caller holds mu.
func (d *Daemon) tell() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Down makes the daemon unreachable, or reachable again. Streams end.
func (d *Daemon) Down(down bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = down
	d.tell()
}

// Refuse makes the daemon refuse messages, or take them again.
func (d *Daemon) Refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = err
}

// Wait waits until is holds. is is called whenever something has changed.
func (d *Daemon) Wait(ctx context.Context, is func() bool) error {
	for {
		d.mu.Lock()
		changed := d.changed
		d.mu.Unlock()
		if is() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Received returns what was sent to the agent.
func (d *Daemon) Received() []api.Frame {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.frames), func(f api.Frame) bool {
		return f.Type != api.FrameUserMessage && f.Type != api.FrameCancel
	})
}

// Message returns the text of a frame to the agent.
func Message(f api.Frame) api.UserMessage {
	var m api.UserMessage
	_ = json.Unmarshal(f.Payload, &m) // the zero value shows it
	return m
}

// Mark returns how far a channel has read.
func (d *Daemon) Mark(channel string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.marks[channel]
}

// Reading returns how many streams are open.
func (d *Daemon) Reading() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reading
}

// Last returns the seq of the last frame.
func (d *Daemon) Last() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.frames))
}

// Say makes the agent say something in the session of a channel.
func (d *Daemon) Say(channel, session string, t api.FrameType, payload any) int64 {
	b, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	f := api.Frame{V: 1, Type: t, TS: time.Now(), Session: api.Session{Channel: channel, ID: session}, Payload: b}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.tell()
	if t == api.FrameDelta {
		d.live = append(d.live, f)
		d.behind = append(d.behind, int64(len(d.frames)))
		return 0
	}
	return d.store(f)
}

// Delta and Done are what agents say mostly.
func (d *Daemon) Delta(channel, session, reply, text string) {
	d.Say(channel, session, api.FrameDelta, api.Delta{Text: text, ReplyTo: reply})
}

// Done says a whole answer.
func (d *Daemon) Done(channel, session, reply, text string, images ...api.Picture) int64 {
	return d.Say(channel, session, api.FrameDone, api.AssistantMessage{Text: text, ReplyTo: reply, Images: images})
}

func (d *Daemon) store(f api.Frame) int64 {
	f.Seq = int64(len(d.frames) + 1)
	if f.MsgID == "" {
		f.MsgID = fmt.Sprintf("msg-%d", f.Seq)
	}
	d.ids[f.MsgID] = f.Seq
	d.frames = append(d.frames, f)
	return f.Seq
}

// TetherSend implements gateway.Agent.
func (d *Daemon) TetherSend(_ context.Context, _ string, f api.Frame) (api.TetherSent, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return api.TetherSent{}, errDown
	}
	if d.refuse != nil {
		return api.TetherSent{}, d.refuse
	}
	seq, known := d.ids[f.MsgID]
	if !known || f.MsgID == "" {
		seq = d.store(f)
		f.MsgID = d.frames[seq-1].MsgID
		d.tell()
	}
	return api.TetherSent{MsgID: f.MsgID, SessionID: f.Session.ID, IngressSeq: seq}, nil
}

// TetherStream implements gateway.Agent.
func (d *Daemon) TetherStream(ctx context.Context, _ string, q client.TetherQuery) iter.Seq2[api.Frame, error] {
	return func(yield func(api.Frame, error) bool) {
		d.mu.Lock()
		seq, live := q.After, len(d.live)
		if seq == 0 && !q.Stored {
			seq = int64(len(d.frames))
		}
		d.reading++
		d.tell()
		d.mu.Unlock()
		defer func() {
			d.mu.Lock()
			d.reading--
			d.tell()
			d.mu.Unlock()
		}()
		for {
			d.mu.Lock()
			down, changed := d.down, d.changed
			out := d.after(&seq, &live)
			d.mu.Unlock()
			if down {
				yield(api.Frame{}, errDown)
				return
			}
			for _, f := range out {
				if matches(f, q) && !yield(f, nil) {
					return
				}
			}
			if len(out) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(api.Frame{}, context.Cause(ctx))
				return
			}
		}
	}
}

// after returns the frames that come next, deltas where they were said.
func (d *Daemon) after(seq *int64, live *int) []api.Frame {
	var out []api.Frame
	for {
		switch {
		case *live < len(d.live) && d.behind[*live] <= *seq:
			out = append(out, d.live[*live])
			*live++
		case *seq < int64(len(d.frames)):
			out = append(out, d.frames[*seq])
			*seq++
		default:
			return out
		}
	}
}

func matches(f api.Frame, q client.TetherQuery) bool {
	return (q.Session.Channel == "" || q.Session.Channel == f.Session.Channel) &&
		(q.Session.ID == "" || q.Session.ID == f.Session.ID) &&
		(len(q.Types) == 0 || slices.Contains(q.Types, f.Type))
}

// TetherWatermark implements gateway.Agent.
func (d *Daemon) TetherWatermark(_ context.Context, _, channel string) (api.Watermark, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return api.Watermark{}, errDown
	}
	return api.Watermark{Channel: channel, Seq: d.marks[channel]}, nil
}

// SetTetherWatermark implements gateway.Agent.
func (d *Daemon) SetTetherWatermark(_ context.Context, _ string, w api.Watermark) (api.Watermark, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return api.Watermark{}, errDown
	}
	d.marks[w.Channel] = max(d.marks[w.Channel], w.Seq)
	d.tell()
	w.Seq = d.marks[w.Channel]
	return w, nil
}

// PutBlob implements gateway.Agent.
func (d *Daemon) PutBlob(_ context.Context, _ string, picture []byte) (api.Blob, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return api.Blob{}, errDown
	}
	name := fmt.Sprintf("blob%d.png", len(d.blobs))
	d.blobs[name] = picture
	return api.Blob{Blob: name, MediaType: "image/png", Size: int64(len(picture))}, nil
}

// Blob returns a picture that was put.
func (d *Daemon) Blob(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.blobs[name]
}

// ReadWorkspace implements gateway.Agent.
func (d *Daemon) ReadWorkspace(_ context.Context, _, path string) ([]byte, error) {
	b := d.Blob(strings.TrimPrefix(path, ".aegis/blobs/"))
	if b == nil {
		return nil, fault.New(fault.NotFound, "there is no %s", path)
	}
	return b, nil
}

// Exec implements gateway.Agent, but for what it is needed for: see Serve.
func (*Daemon) Exec(context.Context, string, api.ExecRequest) (*client.Attach, error) {
	return nil, errors.New("there is no VM")
}

// Execs returns the command lines that were run over Serve.
func (d *Daemon) Execs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.execs)
}

// Forget makes the daemon forget how far a channel has read.
func (d *Daemon) Forget(channel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.marks, channel)
}
