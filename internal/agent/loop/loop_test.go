package loop

import (
	"encoding/json"
	"testing"

	"github.com/xfeldman/aegisvm/internal/agent/history"
)

func calls(ids ...string) history.Message {
	m := history.Message{Role: history.Assistant, Text: "let me see"}
	for _, id := range ids {
		m.Calls = append(m.Calls, history.Call{ID: id, Name: "bash", Args: json.RawMessage("{}")})
	}
	return m
}

func TestNext(t *testing.T) {
	user := history.Message{Role: history.User, Text: "a"}
	done := history.Message{Role: history.Assistant, Text: "b"}
	result := func(id string) history.Message { return history.Message{Role: history.Tool, CallID: id, Text: "x"} }
	for name, c := range map[string]struct {
		in    []history.Message
		spent Spent
		want  Kind
		last  bool
		calls int
	}{
		"nothing":                  {want: End},
		"a message":                {in: []history.Message{user}, want: Ask},
		"calls":                    {in: []history.Message{user, calls("1", "2")}, want: Use, calls: 2},
		"some results":             {in: []history.Message{user, calls("1", "2"), result("2")}, want: Use, calls: 1},
		"all results":              {in: []history.Message{user, calls("1"), result("1")}, want: Ask},
		"an answer":                {in: []history.Message{user, calls("1"), result("1"), done}, want: End},
		"a new message":            {in: []history.Message{user, calls("1"), user}, want: Ask},
		"rounds are used up":       {in: []history.Message{user, calls("1"), result("1"), calls("1"), result("1")}, want: Ask, last: true},
		"rounds of another turn":   {in: []history.Message{user, calls("1"), result("1"), calls("1"), result("1"), done, user}, want: Ask},
		"tokens are used up":       {in: []history.Message{user}, spent: Spent{Tokens: 100}, want: Ask, last: true},
		"the time is up":           {in: []history.Message{user}, spent: Spent{Minutes: true}, want: Ask, last: true},
		"calls are finished first": {in: []history.Message{user, calls("1")}, spent: Spent{Minutes: true}, want: Use, calls: 1},
	} {
		got := Next(c.in, c.spent, Budget{Rounds: 2, Tokens: 100})
		if got.Kind != c.want || got.Last != c.last || len(got.Calls) != c.calls || (got.Why != "") != c.last {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := Text([]history.Message{user, done, user, calls("1"), result("1"), done}); got != "let me see\n\nb" {
		t.Errorf("text %q", got)
	}
}
