package history

import (
	"fmt"
	"slices"
	"strings"
)

// LostResult is the result of a call that was cut short.
const LostResult = "There is no result: the call was interrupted. It may have run, in whole or in part; what it had started was ended. Look before you run it again."

// What Repair says where something else is missing.
const (
	lostAnswer = "(interrupted before an answer)"
	lostText   = "(an empty message)"
)

// Repair returns messages as a valid conversation. It takes whatever a crash, a pause, a
// cancel or a damaged file has left: answers without results, results without calls,
// results in any order, two messages of a user in a row. It changes nothing that is valid
// already, drops nothing that was said, and may be applied again without effect.
func Repair(messages []Message) []Message {
	var out []Message
	for i, m := range messages {
		switch m.Role {
		case User:
			if n := len(out); n > 0 && out[n-1].Role != Assistant {
				out = append(out, Message{Role: Assistant, Text: lostAnswer})
			}
			out = append(out, filled(m))
		case Assistant:
			if n := len(out); n > 0 && out[n-1].Role == Assistant {
				if m.empty() {
					continue
				}
				// Two answers in a row: what was asked in between is lost.
				out = append(out, Message{Role: User, Text: lostText})
			}
			if m.empty() {
				continue
			}
			if len(out) == 0 {
				out = append(out, Message{Role: User, Text: lostText})
			}
			m.Calls = Unique(m.Calls)
			out = append(out, m)
			out = append(out, results(m.Calls, messages[i+1:])...)
		case Tool:
			// Results were taken by the message that called; others have no call.
		}
	}
	return out
}

// filled returns a user's message that is not empty.
func filled(m Message) Message {
	m.Calls, m.Opaque, m.CallID = nil, nil, ""
	if m.empty() {
		m.Text = lostText
	}
	return m
}

// Unique returns calls that have ids, each its own, and arguments that are objects.
func Unique(calls []Call) []Call {
	seen := map[string]bool{}
	out := make([]Call, 0, len(calls))
	for i, c := range calls {
		if c.Name == "" {
			c.Name = "unknown"
		}
		if c.ID == "" {
			c.ID = fmt.Sprintf("call_%d", i)
		}
		for base, n := c.ID, 2; seen[c.ID]; n++ {
			c.ID = fmt.Sprintf("%s_%d", base, n)
		}
		seen[c.ID] = true
		c.Args = object(c.Args)
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// results returns one result for each call, in their order: the first that is found
// before the next answer, or one that says that there is none.
func results(calls []Call, rest []Message) []Message {
	var out []Message
	for _, c := range calls {
		r := Message{Role: Tool, CallID: c.ID, Text: LostResult, Failed: true}
		for _, m := range rest {
			if m.Role == Assistant {
				break
			}
			if m.Role == Tool && m.CallID == c.ID {
				r = m
				break
			}
		}
		r.Calls, r.Opaque = nil, nil
		if strings.TrimSpace(r.Text) == "" {
			r.Text = "(no output)"
		}
		out = append(out, r)
	}
	return out
}

// Missing returns the calls of the last answer in messages that have no result yet, and
// whether there is such an answer after the last message of a user.
func Missing(messages []Message) []Call {
	done := map[string]bool{}
	for _, m := range slices.Backward(messages) {
		switch m.Role {
		case User:
			return nil
		case Tool:
			done[m.CallID] = true
		case Assistant:
			var out []Call
			for _, c := range Unique(m.Calls) {
				if !done[c.ID] {
					out = append(out, c)
				}
			}
			return out
		}
	}
	return nil
}

// Check says what a strict provider would refuse in messages, or nil.
func Check(messages []Message) error {
	want := User
	var open []Call
	for i, m := range messages {
		switch {
		case m.Role == Tool && len(open) > 0:
			if m.CallID != open[0].ID {
				return fmt.Errorf("message %d: result of %q, expected that of %q", i, m.CallID, open[0].ID)
			}
			open = open[1:]
		case len(open) > 0:
			return fmt.Errorf("message %d: %s, but %q has no result", i, m.Role, open[0].ID)
		case m.Role == Assistant && i > 0 && messages[i-1].Role == Tool:
		case m.Role != want:
			return fmt.Errorf("message %d: %s, expected %s", i, m.Role, want)
		}
		if m.empty() {
			return fmt.Errorf("message %d: empty", i)
		}
		switch m.Role {
		case User:
			want = Assistant
		case Assistant:
			want = User
			open = append(open, m.Calls...)
		case Tool:
			want = Assistant
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("the end: %q has no result", open[0].ID)
	}
	return nil
}
