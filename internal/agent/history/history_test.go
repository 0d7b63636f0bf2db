package history

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
)

func say(r Role, text string) Message { return Message{Role: r, Text: text} }

func calls(ids ...string) Message {
	m := Message{Role: Assistant}
	for _, id := range ids {
		m.Calls = append(m.Calls, Call{ID: id, Name: "bash", Args: json.RawMessage(`{}`)})
	}
	return m
}

func result(id, text string) Message { return Message{Role: Tool, CallID: id, Text: text} }

func TestRepair(t *testing.T) {
	lost := func(id string) Message { return Message{Role: Tool, CallID: id, Text: LostResult, Failed: true} }
	for name, c := range map[string]struct{ in, want []Message }{
		"a whole one stays": {
			[]Message{say(User, "a"), calls("1"), result("1", "x"), say(Assistant, "b")},
			[]Message{say(User, "a"), calls("1"), result("1", "x"), say(Assistant, "b")},
		},
		"cut in a call": {
			[]Message{say(User, "a"), calls("1", "2"), result("2", "x")},
			[]Message{say(User, "a"), calls("1", "2"), lost("1"), result("2", "x")},
		},
		"a new message after a cut": {
			[]Message{say(User, "a"), calls("1"), say(User, "b")},
			[]Message{say(User, "a"), calls("1"), lost("1"), say(Assistant, lostAnswer), say(User, "b")},
		},
		"a late result": {
			[]Message{say(User, "a"), calls("1"), say(User, "b"), result("1", "x")},
			[]Message{say(User, "a"), calls("1"), result("1", "x"), say(Assistant, lostAnswer), say(User, "b")},
		},
		"results as they came": {
			[]Message{say(User, "a"), calls("1", "2"), result("2", "y"), result("1", "x")},
			[]Message{say(User, "a"), calls("1", "2"), result("1", "x"), result("2", "y")},
		},
		"a result of nothing": {[]Message{result("9", "x"), say(User, "a")}, []Message{say(User, "a")}},
		"an empty answer":     {[]Message{say(User, "a"), say(Assistant, " ")}, []Message{say(User, "a")}},
		"text before a call is kept": {
			[]Message{say(User, "a"), {Role: Assistant, Text: "let me see", Calls: calls("1").Calls}},
			[]Message{say(User, "a"), {Role: Assistant, Text: "let me see", Calls: calls("1").Calls}, lost("1")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Repair(c.in)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, in := range map[string][]Message{
		"an open call":          {say(User, "a"), calls("1")},
		"a call, then a user":   {say(User, "a"), calls("1"), say(User, "b")},
		"results out of order":  {say(User, "a"), calls("1", "2"), result("2", "x"), result("1", "x")},
		"a result of nothing":   {say(User, "a"), result("1", "x")},
		"two users":             {say(User, "a"), say(User, "b")},
		"an assistant first":    {say(Assistant, "a")},
		"an empty message":      {say(User, "")},
		"a result given twice":  {say(User, "a"), calls("1"), result("1", "x"), result("1", "x")},
		"an empty tool message": {say(User, "a"), calls("1"), result("1", "")},
	} {
		if Check(in) == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// someMessages returns a conversation, and in it what crashes leave: it is cut and
// shuffled at random.
func someMessages(r *rand.Rand) []Message {
	var out []Message
	for range r.IntN(40) {
		switch r.IntN(4) {
		case 0:
			m := say(User, strings.Repeat("u", r.IntN(300)))
			if r.IntN(4) == 0 {
				m.Images = []api.Picture{{Blob: "b"}}
			}
			out = append(out, m)
		case 1:
			out = append(out, say(Assistant, strings.Repeat("a", r.IntN(50))))
		case 2:
			var ids []string
			for range r.IntN(4) {
				ids = append(ids, fmt.Sprint("c", r.IntN(6)))
			}
			m := calls(ids...)
			m.Text = strings.Repeat("t", r.IntN(3))
			out = append(out, m)
		case 3:
			out = append(out, result(fmt.Sprint("c", r.IntN(6)), strings.Repeat("ü", r.IntN(3000))))
		}
	}
	return out
}

func TestRepairAndTrimAlwaysValid(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 1))
		in := someMessages(r)
		whole := Repair(in)
		if err := Check(whole); err != nil {
			t.Fatalf("seed %d: after Repair: %v\n%+v", seed, err, in)
		}
		if again := Repair(whole); !reflect.DeepEqual(again, whole) {
			t.Fatalf("seed %d: Repair changes what is valid", seed)
		}
		before := fmt.Sprint(whole)
		l := Limits{Chars: r.IntN(4000), Turns: r.IntN(5)}
		cut := Trim(whole, l)
		if err := Check(cut); err != nil {
			t.Fatalf("seed %d: after Trim to %+v: %v", seed, l, err)
		}
		if fmt.Sprint(whole) != before {
			t.Fatalf("seed %d: Trim changed what it was given", seed)
		}
		checkLimits(t, seed, whole, cut, l)
	}
}

func checkLimits(t *testing.T, seed uint64, whole, cut []Message, l Limits) {
	t.Helper()
	n, users := 0, 0
	for _, m := range cut {
		n += m.Chars()
		if m.Role == User {
			users++
		}
	}
	if l.Turns > 0 && users > l.Turns {
		t.Fatalf("seed %d: %d turns, at most %d", seed, users, l.Turns)
	}
	last := func(ms []Message) Message {
		for _, m := range slices.Backward(ms) {
			if m.Role == User {
				return m
			}
		}
		return Message{}
	}
	if !reflect.DeepEqual(last(cut), last(whole)) {
		t.Fatalf("seed %d: the user's last message is lost", seed)
	}
	if len(cut) > 0 && len(whole) > 0 && whole[len(whole)-1].Role == Assistant && cut[len(cut)-1].Text != whole[len(whole)-1].Text {
		t.Fatalf("seed %d: the last answer is lost", seed)
	}
	// Over the limit only where one round is left of one turn.
	if l.Chars > 0 && n > l.Chars && (users > 1 || round(cut) != 0) {
		t.Fatalf("seed %d: %d characters of %d, and there was something to leave out", seed, n, l.Chars)
	}
}

func TestNewCall(t *testing.T) {
	for in, want := range map[string]Call{
		"":             {Args: json.RawMessage("{}")},
		" ":            {Args: json.RawMessage("{}")},
		`{"a":1}`:      {Args: json.RawMessage(`{"a":1}`)},
		`{"a":`:        {Args: json.RawMessage("{}"), Broken: `{"a":`},
		`[1]`:          {Args: json.RawMessage("{}"), Broken: `[1]`},
		`{}`:           {Args: json.RawMessage("{}")},
		`"{\"a\": 1}"`: {Args: json.RawMessage("{}"), Broken: `"{\"a\": 1}"`},
	} {
		got := NewCall("", "", in)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("NewCall(%q) = %+v, want %+v", in, got, want)
		}
	}
}

func TestMissing(t *testing.T) {
	if got := Missing([]Message{say(User, "a"), calls("1", "2"), result("1", "x")}); len(got) != 1 || got[0].ID != "2" {
		t.Errorf("missing: %+v", got)
	}
	if got := Missing([]Message{say(User, "a"), calls("1"), say(User, "b")}); got != nil {
		t.Errorf("missing before a newer message: %+v", got)
	}
}
