// Package loop decides what an agent does next. It is a function of the conversation and
// of what has been spent on it: no clock, no model, no tools. So an agent that was killed
// anywhere goes on by asking it again.
//
//	user ──▶ Ask ──▶ answer with calls ──▶ Use ──▶ results ──▶ Ask ──▶ ... ──▶ answer ──▶ End
package loop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/agent/history"
)

// Kind is what is to be done.
type Kind string

// The kinds.
const (
	Ask Kind = "ask" // ask the model
	Use Kind = "use" // run Calls, and add their results
	End Kind = "end" // the turn is over
)

// Step is what to do next.
type Step struct {
	Kind  Kind
	Calls []history.Call // of Use: those without results
	// Last says of Ask that the model may call nothing any more, and Why is what it is told.
	Last bool
	Why  string
}

// Budget bounds the work on one message. A zero is no bound.
type Budget struct {
	Rounds int
	Tokens int
}

// Spent is what the work on a message has cost, as far as messages do not tell.
type Spent struct {
	Tokens  int
	Minutes bool // the time is up
}

// Next returns the next step in a conversation that begins with a message of the user
// somewhere.
func Next(messages []history.Message, spent Spent, b Budget) Step {
	turn := Turn(messages)
	if len(turn) == 0 {
		return Step{Kind: End}
	}
	if missing := history.Missing(turn); len(missing) > 0 {
		return Step{Kind: Use, Calls: missing}
	}
	if last := turn[len(turn)-1]; last.Role == history.Assistant {
		return Step{Kind: End}
	}
	rounds := 0
	for _, m := range turn {
		if len(m.Calls) > 0 {
			rounds++
		}
	}
	over := ""
	switch {
	case b.Rounds > 0 && rounds >= b.Rounds:
		over = fmt.Sprintf("all %d rounds of tools are used up", b.Rounds)
	case b.Tokens > 0 && spent.Tokens >= b.Tokens:
		over = fmt.Sprintf("the budget of %d tokens is used up", b.Tokens)
	case spent.Minutes:
		over = "the time is up"
	}
	if over == "" {
		return Step{Kind: Ask}
	}
	return Step{Kind: Ask, Last: true, Why: "For this message " + over + ". You can call no more tools. Say what you have found or done, and what is left; the user can tell you to go on."}
}

// Turn returns the newest message of the user and what follows it.
func Turn(messages []history.Message) []history.Message {
	for i, m := range slices.Backward(messages) {
		if m.Role == history.User {
			return messages[i:]
		}
	}
	return nil
}

// Separator stands between what a model says before and after it uses tools.
const Separator = "\n\n"

// Text returns all that the assistant has said in the newest turn.
func Text(messages []history.Message) string {
	var said []string
	for _, m := range Turn(messages) {
		if m.Role == history.Assistant && strings.TrimSpace(m.Text) != "" {
			said = append(said, m.Text)
		}
	}
	return strings.Join(said, Separator)
}
