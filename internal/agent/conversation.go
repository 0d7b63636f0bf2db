package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/process"
	"github.com/xfeldman/aegisvm/internal/agent/session"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Why a run ends before its answer.
var (
	errSuperseded = errors.New("a newer message came")
	errCanceled   = errors.New("stopped by the user")
)

const (
	// windTime is what a run has to write down where it was when it is stopped.
	windTime = 5 * time.Second
	// maxResumes is how often work on one message is taken up again. What brings an agent
	// down that often would do it again.
	maxResumes = 3
)

// conversation is a session and the run that is under way in it.
type conversation struct {
	agent *Agent
	key   api.Session

	gate sync.Mutex // over taking a frame, from the first look to the record: one at a time
	mu   sync.Mutex // over sess: its file and what is known of it
	sess *session.Session
	run  *run // the newest; only under gate
}

// accept takes a frame. It returns when that is durable.
func (c *conversation) accept(ctx context.Context, f api.Frame) error {
	c.gate.Lock()
	defer c.gate.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := c.open(); err != nil {
		return err
	}
	if c.knows(f) {
		return nil
	}
	// What an agent before this one has not ended is ended now, with an answer.
	if err := c.goOn(ctx); err != nil {
		return err
	}
	taken := &session.Taken{Type: f.Type, MsgID: f.MsgID, Seq: f.Seq}
	if f.Type == api.FrameUserMessage {
		return c.message(ctx, f, taken)
	}
	if f.Type == api.FrameCancel {
		c.stop(errCanceled)
		return c.append(session.Record{Taken: taken})
	}
	// A later version of the host may send what this one does not know.
	c.agent.log.WarnContext(ctx, "a frame of an unknown type", logattr.Part(string(f.Type)))
	return nil
}

// message takes a user's message, and begins to work on it.
func (c *conversation) message(ctx context.Context, f api.Frame, taken *session.Taken) error {
	m, err := readMessage(f)
	if err != nil {
		m.Text, m.Images = "("+err.Error()+")", nil
	}
	if busy := c.run != nil && !c.run.over(); busy && f.Session.Channel == cronChannel && m.Cron.OnConflict != "replace" {
		return c.append(session.Record{Taken: taken})
	}
	c.stop(errSuperseded)
	taken.User = m.User
	err = c.append(session.Record{Taken: taken, Message: &history.Message{Role: history.User, Text: m.Text, Images: m.Images}})
	if err != nil {
		return err
	}
	if err := c.agent.last.set(c.key); err != nil {
		c.agent.log.WarnContext(ctx, "remember where the user writes", logattr.Err(err))
	}
	c.begin(ctx, taken)
	return nil
}

// resume goes on with a message that was not ended, if there is one and nothing newer has
// come.
func (c *conversation) resume(ctx context.Context) error {
	c.gate.Lock()
	defer c.gate.Unlock()
	if err := c.open(); err != nil {
		return err
	}
	return c.goOn(ctx)
}

// goOn is resume under the gate, with the session open.
func (c *conversation) goOn(ctx context.Context) error {
	if c.run != nil {
		return nil
	}
	c.mu.Lock()
	taken, times := c.sess.Unanswered()
	missing := history.Missing(c.sess.Messages())
	c.mu.Unlock()
	if taken == nil {
		return nil
	}
	recs := []session.Record{{Resumed: taken.MsgID}}
	for _, call := range missing {
		process.End(callMark(c.key, taken.MsgID, call.ID))
		recs = append(recs, session.Record{Message: &history.Message{Role: history.Tool, CallID: call.ID, Text: history.LostResult, Failed: true}})
	}
	if times >= maxResumes {
		recs = append(recs, session.Record{Message: &history.Message{Role: history.Assistant, Text: "I was interrupted several times while I worked on this, " +
			"so I have stopped. Tell me to go on if you want me to try again."}})
	}
	for _, r := range recs {
		if err := c.append(r); err != nil {
			return err
		}
	}
	c.begin(ctx, taken)
	return nil
}

// begin starts the run for a message, after the one before.
func (c *conversation) begin(ctx context.Context, taken *session.Taken) {
	before := c.run
	r := newRun(ctx, c, taken)
	c.run = r
	c.agent.activity.begin()
	c.agent.wg.Go(func() {
		defer c.agent.activity.end()
		if before != nil {
			<-before.done
		}
		r.live()
		c.agent.closeSessions(openSessions, c)
	})
}

// stop ends the run that is under way, and waits until it has written down where it was.
// Later it writes nothing any more.
func (c *conversation) stop(cause error) {
	if c.run == nil || c.run.over() {
		return
	}
	c.run.cancel(cause)
	timer := time.NewTimer(windTime)
	defer timer.Stop()
	select {
	case <-c.run.wound:
	case <-timer.C:
	}
	c.mu.Lock()
	c.run.void = true
	c.mu.Unlock()
}

func (c *conversation) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess != nil {
		return nil
	}
	window := session.Window{Chars: maxWindow}
	if s, _ := c.agent.settings(); s != nil {
		window.Chars = s.ContextChars
	}
	s, err := session.Open(c.agent.conf.sessions(), c.key, window)
	if err != nil {
		return err
	}
	if n := s.Unreadable(); n > 0 {
		c.agent.log.Warn("a session has lines that cannot be read", logattr.Part(session.FileName(c.key)))
	}
	c.sess = s
	return nil
}

// maxWindow is what is kept of a session while the settings are wrong, in characters.
const maxWindow = 400_000

func (c *conversation) knows(f api.Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess.Knows(f)
}

func (c *conversation) append(r session.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess.Append(r)
}

func (c *conversation) messages() []history.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess.Messages()
}

// isOpen reports whether the session is in memory.
func (c *conversation) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess != nil
}

// close closes the session if nothing is under way in it, and reports whether it did. The
// next frame opens it again.
func (c *conversation) close() bool {
	if !c.gate.TryLock() {
		return false
	}
	defer c.gate.Unlock()
	if c.run != nil && !c.run.over() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess != nil {
		_ = c.sess.Close() // all that was appended is on disk
		c.sess = nil
	}
	return true
}
