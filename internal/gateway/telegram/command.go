package telegram

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// notice is something of the gateway's own that is written in a chat.
type notice struct {
	text string
	code bool // it is a program's output
	idle bool // it is of interest only where the agent does nothing
}

const greeting = `I pass on what you write to an agent in a VM of its own, and bring its answers.

/new – begin a new conversation
/cancel – stop what the agent is doing

Pictures are welcome.`

// isOwn tells whether a command is the gateway's. Others are the agent's.
func (ch *channel) isOwn(name string) bool {
	switch name {
	case "start", "new", "cancel", "exec":
		return true
	}
	return false
}

func (r *receiver) command(ctx context.Context, u update, name, args string) error {
	chat := u.message.Chat.ID
	switch name {
	case "start":
		r.say(chat, greeting)
	case "new":
		return r.begin(ctx, u)
	case "cancel":
		if err := r.line.Cancel(ctx, r.names.of(chat), r.cancelID(u)); err != nil {
			return err
		}
		// An agent that is at work says so itself.
		r.line.Post(r.names.of(chat), notice{text: "Stopped.", idle: true})
	case "exec":
		return r.exec(ctx, u, args)
	}
	return nil
}

func (r *receiver) cancelID(u update) string {
	return fmt.Sprintf("telegram-%d-%d-%d-cancel", r.me.ID, u.message.Chat.ID, u.id)
}

// begin ends what the agent does in a chat, and begins a new session there.
func (r *receiver) begin(ctx context.Context, u update) error {
	chat := u.message.Chat.ID
	next := fmt.Sprintf("%d_%d", chat, u.id)
	if old := r.names.of(chat); old != next {
		if err := r.line.Cancel(ctx, old, r.cancelID(u)); err != nil {
			return err
		}
	}
	if err := r.names.set(chat, next); err != nil {
		return err
	}
	rest := strings.TrimSpace(u.message.Text)
	if _, after, ok := strings.Cut(rest, " "); ok && strings.TrimSpace(after) != "" {
		m := *u.message
		m.Text = strings.TrimSpace(after)
		return r.tell(ctx, []update{{u.id, &m}})
	}
	r.say(chat, "A new conversation.")
	return nil
}

const (
	execTime   = time.Minute // how long a command of /exec may run
	execOutput = 3500        // bytes of its output that are shown: one message
)

// exec runs a command in the VM, if that is allowed.
func (r *receiver) exec(ctx context.Context, u update, args string) error {
	chat := u.message.Chat.ID
	if !r.channel.exec {
		r.say(chat, "Commands are not allowed here. To allow them, set \"allow_exec\": true in gateway.json.")
		return nil
	}
	if args == "" {
		r.say(chat, "Usage: /exec COMMAND")
		return nil
	}
	if ended, ok := r.busy[chat]; ok {
		select {
		case <-ended:
		default:
			r.say(chat, "One command at a time: the last one still runs.")
			return nil
		}
	}
	// A command must not run twice: its update is acknowledged before it begins.
	if _, err := r.bot.poll(ctx, u.id+1, 0); err != nil {
		return err
	}
	r.log.InfoContext(ctx, "a chat runs a command", logattr.Chat(chat))
	ended := make(chan struct{})
	r.busy[chat] = ended
	r.execs.Go(func() {
		defer close(ended)
		out := r.run(ctx, args)
		if ctx.Err() == nil {
			r.line.Post(r.names.of(chat), out)
		}
	})
	return nil
}

// run runs a command and returns what there is to say of it.
func (r *receiver) run(ctx context.Context, command string) notice {
	ctx, cancel := context.WithTimeout(ctx, execTime)
	defer cancel()
	var out tail
	status, err := r.line.Exec(ctx, command, &out)
	text := strings.TrimRight(out.String(), "\n")
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		text += fmt.Sprintf("\n[ended: it ran for more than %v]", execTime)
	case err != nil:
		text += "\n[" + err.Error() + "]"
		if h := fault.HintOf(err); h != "" {
			text += "\n[" + h + "]"
		}
	case status != 0:
		text += fmt.Sprintf("\n[exit status %d]", status)
	}
	if text = strings.Trim(text, "\n"); text == "" {
		text = "[no output]"
	}
	return notice{text: text, code: true}
}

// tail keeps the last bytes that are written to it.
type tail struct {
	kept bytes.Buffer
	cut  bool
}

func (t *tail) Write(b []byte) (int, error) {
	t.kept.Write(b)
	if over := t.kept.Len() - execOutput; over > 0 {
		t.kept.Next(over)
		t.cut = true
	}
	return len(b), nil
}

func (t *tail) String() string {
	if t.cut {
		return "[…]\n" + t.kept.String()
	}
	return t.kept.String()
}
