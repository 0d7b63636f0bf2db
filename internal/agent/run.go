package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/loop"
	"github.com/xfeldman/aegisvm/internal/agent/process"
	"github.com/xfeldman/aegisvm/internal/agent/session"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// run is the work on one message.
type run struct {
	c      *conversation
	taken  *session.Taken
	life   context.Context //nolint:containedctx // the agent's: what the run says is sent until that ends
	ctx    context.Context //nolint:containedctx // the life of the run; cancel ends it
	cancel context.CancelCauseFunc
	voice  *voice
	kit    *kit
	spent  loop.Spent

	wound chan struct{} // closed when it has written all that it writes of the conversation
	done  chan struct{} // closed at the end
	void  bool          // under c.mu: it may not write any more

	prefix  string          // what the answer begins with: trouble with the settings
	partial strings.Builder // what the model has said of an answer that is not whole
	final   string          // all that was said, at the end
	mu      sync.Mutex
	images  []api.Picture // of the answer; under mu, since tools run at the same time
}

var errVoid = errors.New("the conversation has gone on")

func newRun(ctx context.Context, c *conversation, taken *session.Taken) *run {
	r := &run{c: c, taken: taken, life: ctx, wound: make(chan struct{}), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

func (r *run) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// live is all of a run. What it says of the end it says when the end is on disk, and the
// message is ended when the host has it.
func (r *run) live() {
	defer close(r.done)
	defer r.cancel(nil)
	r.voice = newVoice(r.life, r.c.agent.host, r.c.key, r.taken.MsgID)
	defer r.voice.close()
	r.voice.ack()
	err := r.work()
	if r.life.Err() != nil {
		close(r.wound)
		return // the next agent goes on
	}
	if err != nil {
		err = r.wind(err)
	} else {
		r.final = loop.Text(r.c.messages())
	}
	close(r.wound)
	if err != nil && r.ctx.Err() != nil {
		process.End(runMark(r.c.key, r.taken.MsgID))
	}
	r.voice.done(r.answer(err))
	r.voice.presence("idle")
	if !r.voice.close() {
		return // nobody has it: the next agent sends it
	}
	if err := r.append(session.Record{End: r.taken.MsgID}); err != nil && !errors.Is(err, errVoid) {
		r.c.agent.log.Error("end a message", logattr.Err(err))
	}
}

// work takes one step after the other. An answer that is whole is one, whatever came since.
func (r *run) work() error {
	a := r.c.agent
	if loop.Next(r.c.messages(), r.spent, loop.Budget{}).Kind == loop.End {
		return nil // an agent before this one got as far
	}
	set, err := a.settings()
	if err != nil {
		if set == nil {
			return err
		}
		notice := explain(err) + " Until then I go on with the settings from before."
		r.prefix = notice + loop.Separator
		r.voice.say(notice)
	}
	if r.kit, err = a.assemble(r.ctx, set, r.taken); err != nil {
		return err
	}
	budget := loop.Budget{Rounds: set.Budget.Rounds, Tokens: set.Budget.Tokens}
	until := time.Now().Add(time.Duration(set.Budget.Minutes) * time.Minute)
	for {
		r.spent.Minutes = time.Now().After(until)
		step := loop.Next(r.c.messages(), r.spent, budget)
		if r.ctx.Err() != nil && step.Kind != loop.End {
			return context.Cause(r.ctx)
		}
		switch step.Kind {
		case loop.Ask:
			err = r.ask(step)
		case loop.Use:
			err = r.use(step.Calls)
		case loop.End:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// wind writes down how a run ended that has no answer, as the end of its turn: so that the
// model knows, and the user hears of it even if this agent ends now.
func (r *run) wind(err error) error {
	partial := strings.TrimSpace(r.partial.String())
	var note string
	switch cause := context.Cause(r.ctx); {
	case errors.Is(cause, errCanceled), errors.Is(cause, errSuperseded):
		err, note = cause, "["+cause.Error()+"]"
		// What ran has a result that says so.
		for _, call := range history.Missing(r.c.messages()) {
			lost := session.Record{Message: &history.Message{Role: history.Tool, CallID: call.ID, Text: "This was ended: " + cause.Error() + ".", Failed: true}}
			if r.append(lost) != nil {
				return err
			}
		}
	default:
		note = explain(err)
	}
	before := loop.Text(r.c.messages())
	text := note
	if partial != "" {
		text = partial + loop.Separator + note
	}
	if appendErr := r.append(session.Record{Message: &history.Message{Role: history.Assistant, Text: text}}); appendErr != nil && !errors.Is(appendErr, errVoid) {
		r.c.agent.log.Error("write down the end of a run", logattr.Err(appendErr))
	}
	if r.final = text; before != "" {
		r.final = before + loop.Separator + text
	}
	r.voice.say(note)
	return err
}

// answer returns what the user is told in the end.
func (r *run) answer(err error) api.AssistantMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := api.AssistantMessage{Text: r.prefix + r.final, Images: r.images, ReplyTo: r.taken.MsgID}
	if strings.TrimSpace(m.Text) == "" && len(m.Images) == 0 {
		m.Text = "(no answer)"
	}
	if err != nil {
		m.Error = err.Error()
	}
	return m
}

// append writes a record of this run, unless the conversation has gone on.
func (r *run) append(rec session.Record) error {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.void {
		return errVoid
	}
	if err := r.c.sess.Append(rec); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the conversation cannot be written").WithHint("see whether the workspace has room")
	}
	return nil
}

// explain says an error to the user: what happened, and what to do.
func explain(err error) string {
	text := "⚠ " + err.Error() + "."
	if hint := fault.HintOf(err); hint != "" {
		text += " " + strings.ToUpper(hint[:1]) + hint[1:] + "."
	}
	return text
}
