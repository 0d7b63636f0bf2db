package agent

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/loop"
	"github.com/xfeldman/aegisvm/internal/agent/provider"
	"github.com/xfeldman/aegisvm/internal/agent/session"
	"github.com/xfeldman/aegisvm/internal/agent/tool"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	// parallelCalls is how many tools run at the same time.
	parallelCalls = 8
	// squeezes is how often a conversation that is too long for its model is made shorter.
	squeezes = 3
)

// ask asks the model, and adds its answer to the conversation.
func (r *run) ask(step loop.Step) error {
	r.voice.presence("thinking")
	limits := r.kit.context
	for n := 0; ; n++ {
		answer, err := r.stream(step, limits)
		if t, ok := errors.AsType[*provider.Error](err); ok && t.TooLong && n < squeezes {
			limits.Chars = min(limits.Chars, chars(history.Trim(history.Repair(r.c.messages()), limits))) / 2
			continue
		}
		if err != nil {
			return err
		}
		return r.take(step, answer)
	}
}

func chars(ms []history.Message) int {
	n := 0
	for _, m := range ms {
		n += m.Chars()
	}
	return n
}

// stream asks once, telling the user what the model says.
func (r *run) stream(step loop.Step, limits history.Limits) (provider.Answer, error) {
	r.partial.Reset()
	r.voice.paragraph()
	system := r.kit.system
	if step.Why != "" {
		system += "\n\n" + step.Why
	}
	answer, err := r.kit.model.Stream(r.ctx, provider.Request{
		System:   system,
		Messages: history.Trim(history.Repair(r.c.messages()), limits),
		Tools:    r.kit.tools.Offers(), NoCalls: step.Last, MaxTokens: r.kit.maxTokens,
		Image: r.c.agent.blobs.Get,
	}, func(d provider.Delta) {
		switch {
		case d.Again:
			r.partial.Reset()
			r.voice.say("[the connection to the model broke; I ask it again]")
			r.voice.paragraph()
		case d.Text != "":
			r.partial.WriteString(d.Text)
			r.voice.text(d.Text)
		case d.Reasoning != "":
			r.voice.reasoning(d.Reasoning)
		}
	})
	if err == nil && answer.Reasoning != "" {
		r.voice.thought(answer.Reasoning)
	}
	return answer, err
}

// take adds a whole answer to the conversation.
func (r *run) take(step loop.Step, answer provider.Answer) error {
	r.spent.Tokens += answer.Tokens
	m := answer.Message
	if step.Last {
		m.Calls, m.Opaque = nil, nil // it was told that it may not
	}
	note := ""
	switch {
	case answer.Stop == provider.Refused:
		note = "[the model, or a filter before it, refused to go on]"
	case answer.Stop == provider.Length && len(m.Calls) == 0:
		note = "[the answer is cut off: it reached the limit of max_tokens, or of the model; say \"go on\" for more]"
	case strings.TrimSpace(m.Text) == "" && len(m.Calls) == 0:
		note = "[the model gave an empty answer; ask again, or choose another model]"
	}
	if note != "" {
		r.voice.say(note)
		m.Text = strings.TrimSpace(m.Text + loop.Separator + note)
	}
	r.partial.Reset()
	return r.append(session.Record{Message: &m})
}

// use runs calls side by side, and adds each result when it is there. Their order does not
// matter on disk.
func (r *run) use(calls []history.Call) error {
	r.voice.presence("working")
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, parallelCalls)
		errs  = make(chan error, len(calls))
	)
	for _, call := range calls {
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-r.ctx.Done():
				return
			}
			m := r.call(call)
			if r.ctx.Err() != nil {
				return // whoever ended the run says what became of its calls
			}
			errs <- r.append(session.Record{Message: &m})
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// call runs one tool, and returns its result, whatever happens.
func (r *run) call(call history.Call) history.Message {
	m := history.Message{Role: history.Tool, CallID: call.ID}
	if call.Broken != "" {
		m.Failed, m.Text = true, fmt.Sprintf("The arguments are no JSON object, so that nothing was done: %.500s", call.Broken)
		return m
	}
	began := time.Now()
	got, err := r.kit.tools.Run(r.ctx, call.Name, tool.Call{
		Args: call.Args, Mark: callMark(r.c.key, r.taken.MsgID, call.ID), Session: r.c.key, Reply: r.attach,
	})
	r.c.agent.log.Debug("a tool was used", logattr.Part(call.Name), logattr.Took(time.Since(began)))
	m.Text, m.Images = got.Text, got.Images
	if err != nil {
		m.Failed, m.Text = true, "Error: "+err.Error()
		if hint := fault.HintOf(err); hint != "" {
			m.Text += " (" + hint + ")"
		}
	}
	if strings.TrimSpace(m.Text) == "" {
		m.Text = "(no output)"
	}
	return m
}

// attach adds a picture to the answer.
func (r *run) attach(p api.Picture) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, have := range r.images {
		if have.Blob == p.Blob {
			return
		}
	}
	r.images = append(r.images, p)
}
