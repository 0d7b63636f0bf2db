package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type tetherChatOptions struct {
	app     *app
	session string
}

func newTetherChat(a *app) *cobra.Command {
	o := &tetherChatOptions{app: a}
	cmd := &cobra.Command{
		Use:   "chat [--session ID] X",
		Short: "talk to the agent, a line at a time",
		Long: `Talk to the agent in an instance: each line that is typed, or that stdin has, is a message, and the answer is
printed as it comes. The next line is sent when the answer is complete.

Ctrl-C while the agent answers has it stop; a second one leaves. Ctrl-C or Ctrl-D at the prompt leave.
What was said can be read later: aegis tether read X.`,
		Example: `  aegis tether chat helper
  aegis tether chat --session review helper < questions.txt`,
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	sessionFlag(cmd.Flags(), &o.session)
	return cmd
}

func (o *tetherChatOptions) run(ctx context.Context, ref string) error {
	// Before anything is typed: the instance may not be there.
	if _, err := o.app.client().Info(ctx, ref); err != nil {
		return err
	}
	ctx, interrupts, stop := uninterrupted(ctx)
	defer stop()
	c := &chat{conversation{app: o.app, ref: ref, session: hostSession(o.session)}, interrupts}
	return c.run(ctx)
}

// uninterrupted returns a context that ends as ctx does, but not with a Ctrl-C: that comes
// over the channel, each time. stop undoes it.
func uninterrupted(parent context.Context) (ctx context.Context, interrupts <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGINT) {
		signal.Notify(signals, syscall.SIGINT)
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	undo := context.AfterFunc(parent, func() {
		if i, ok := errors.AsType[interruptedError](context.Cause(parent)); !ok || i.sig != syscall.SIGINT {
			cancel(context.Cause(parent))
		}
	})
	return ctx, signals, func() {
		undo()
		signal.Stop(signals)
		cancel(nil)
	}
}

// chat is a conversation with a person.
type chat struct {
	conversation

	interrupts <-chan os.Signal
}

// typed is a line of stdin, or why there are no more.
type typed struct {
	text string
	err  error // nil at the end
	end  bool
}

func (c *chat) run(ctx context.Context) error {
	lines := make(chan typed)
	quit := make(chan struct{})
	defer close(quit)
	go readTyped(c.app.in, lines, quit) // it ends with the program if stdin says nothing more
	for {
		c.prompt()
		select {
		case line := <-lines:
			if line.end {
				c.endLine()
				return line.err
			}
			if strings.TrimSpace(line.text) == "" {
				continue
			}
			if err := c.turn(ctx, line.text); err != nil {
				return err
			}
		case <-c.interrupts:
			c.endLine()
			return interruptedError{syscall.SIGINT}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func readTyped(in *os.File, lines chan<- typed, quit <-chan struct{}) {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, maxMessage)
	for more := true; more; {
		more = scanner.Scan()
		line := typed{text: scanner.Text(), end: !more}
		if err := scanner.Err(); err != nil {
			line.err = fmt.Errorf("read from stdin: %w", err)
		}
		select {
		case lines <- line:
		case <-quit:
			return
		}
	}
}

// turn sends a message and shows the answer. The first interrupt has the agent stop, the
// second ends the turn.
func (c *chat) turn(parent context.Context, text string) error {
	ctx, leave := context.WithCancelCause(parent)
	defer leave(nil)
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-c.interrupts:
			case <-over:
				return
			}
			if n > 0 {
				leave(interruptedError{syscall.SIGINT})
				return
			}
			if err := c.cancel(ctx); err != nil {
				leave(err)
				return
			}
		}
	})
	defer wg.Wait()
	defer close(over)
	sent, err := c.send(ctx, api.UserMessage{Text: text})
	if err == nil {
		_, err = c.answer(ctx, sent, func(s string) error { return c.app.print("%s", c.app.display(s)) })
	}
	return err
}

// prompt asks for a line where a person types it.
func (c *chat) prompt() {
	if isTerminal(c.app.in) {
		_, _ = fmt.Fprint(c.app.err, "> ") // as in say
	}
}

// endLine ends the line of a prompt.
func (c *chat) endLine() {
	if isTerminal(c.app.in) {
		_, _ = fmt.Fprintln(c.app.err) // as in say
	}
}
