package history

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// Limits bounds what is sent to a model. A zero is no bound.
type Limits struct {
	Chars int // of all messages together, see Message.Chars
	Turns int // messages of the user
}

// keepChars is how much is left of a tool's result that has to give way.
const keepChars = 400

// Trim returns the newest part of a valid conversation that is within l. Turns go as a
// whole, oldest first. The newest turn stays: where it alone is too long, results of its
// tools are shortened, oldest first, then its oldest rounds go, each a set of calls with
// their results. The user's last message is always there, whatever its length. What is
// returned is valid and shares nothing that is changed with messages.
func Trim(messages []Message, l Limits) []Message {
	starts := turns(messages)
	if len(starts) == 0 {
		return nil
	}
	total, first := 0, len(starts)
	for i, start := range slices.Backward(starts) {
		end := len(messages)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		n := 0
		for _, m := range messages[start:end] {
			n += m.Chars()
		}
		newest := i == len(starts)-1
		if !newest && (l.Chars > 0 && total+n > l.Chars || l.Turns > 0 && len(starts)-i > l.Turns) {
			break
		}
		total, first = total+n, i
	}
	out := append([]Message(nil), messages[starts[first]:]...)
	if l.Chars > 0 && total > l.Chars {
		out = squeeze(out, total, l.Chars)
	}
	return out
}

// turns returns where the turns begin.
func turns(messages []Message) []int {
	var out []int
	for i, m := range messages {
		if m.Role == User {
			out = append(out, i)
		}
	}
	return out
}

// squeeze makes a turn of total characters fit into limit, as far as it can.
func squeeze(turn []Message, total, limit int) []Message {
	for i := range turn {
		if total <= limit {
			return turn
		}
		if turn[i].Role != Tool || turn[i].Chars() <= 2*keepChars {
			continue
		}
		before := turn[i].Chars()
		turn[i] = shortened(turn[i], keepChars)
		total += turn[i].Chars() - before
	}
	for total > limit {
		end := round(turn)
		if end == 0 {
			break
		}
		for _, m := range turn[1:end] {
			total -= m.Chars()
		}
		turn = append(turn[:1:1], turn[end:]...)
	}
	return turn
}

// round returns where the first round of a turn ends, or 0 if it is the last one.
func round(turn []Message) int {
	if len(turn) < 2 || len(turn[1].Calls) == 0 {
		return 0
	}
	end := 2 + len(turn[1].Calls)
	if end >= len(turn) {
		return 0
	}
	return end
}

// shortened returns a result of which n characters of the beginning are left.
func shortened(m Message, n int) Message {
	cut := utf8.RuneCountInString(m.Text) - n
	if cut > 0 {
		m.Text = string([]rune(m.Text)[:n]) + fmt.Sprintf("\n[%d characters were cut here to save room; run the tool again if you need them]", cut)
	}
	if len(m.Images) > 0 {
		m.Images = nil
		m.Text += "\n[an image was left out here to save room]"
	}
	return m
}
