package instance

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

var errOp = errors.New("operation failed")

// model plays the actor's part: it performs effects in its own books and checks
// what must hold whatever happens.
type model struct {
	t       *testing.T
	s       Snap
	busy    bool
	goals   int // unanswered explicit requests
	takings int // unanswered requests to capture it
	waiting int // unanswered acquires
	holds   int
	told    bool // the last event answered the goal
	history []string
}

func (m *model) feed(ev Event) {
	m.t.Helper()
	switch ev.Kind {
	case Done:
		if !m.busy {
			return
		}
		m.busy = false
	case Acquire, Start:
		m.waiting++
	case Abandon:
		if m.waiting == 0 {
			return
		}
		m.waiting--
	case Release:
		if m.holds == 0 {
			return
		}
		m.holds--
	case Pause, Hibernate, Stop, Disable, Restart, Revert, Delete:
		m.goals++
	case TakeState:
		m.takings++
	case Idle, Exited, Crashed, Died, eventKinds:
	}
	before := m.s
	m.told = false
	var effs []Effect
	m.s, effs = next(m.s, ev)
	m.history = append(m.history, fmt.Sprintf("%v + %v -> %v %v", before, ev, m.s, effs))
	for _, e := range effs {
		m.perform(e)
	}
	m.check(before)
}

func (m *model) perform(e Effect) {
	switch e.Do {
	case DoBoot, DoPause, DoResume, DoSave, DoStop, DoErase, DoRevert, DoCapture:
		if m.busy {
			m.fail("two operations in flight")
		}
		m.busy = true
		if e.Do == DoCapture {
			m.takings-- // its end answers
		}
		if e.Do == DoRevert && m.s.Goal != ToRunning {
			m.fail("a revert that nobody asked for")
		}
	case RefuseCaptures:
		m.takings = 0
	case AnswerHolds:
		if e.Err == nil {
			m.holds += m.waiting
		}
		m.waiting = 0
	case AnswerGoal:
		m.goals, m.told = 0, true
	case Overrule:
		m.goals = 1
	case Refuse:
		m.goals--
	case Cancel:
		if !m.busy {
			m.fail("nothing to cancel")
		}
	case ArmIdle:
		if m.holds > 0 {
			m.fail("idle timer armed while held")
		}
	case DisarmIdle:
	}
}

func (m *model) check(before Snap) {
	switch {
	case m.s.State.Settled() == m.busy:
		m.fail("operation in flight and state disagree")
	case m.s.Waiting != m.waiting || m.s.Holds != m.holds:
		m.fail("count of holds is wrong: waiting %d, holds %d", m.waiting, m.holds)
	case m.s.Captures != m.takings:
		m.fail("count of captures is wrong: %d", m.takings)
	case !m.busy && m.takings > 0:
		m.fail("somebody waits for a capture and nothing happens")
	case before.State == Capturing && m.s.State != Capturing && m.s.State.Settled() && m.s.State != before.Back && m.s.State != Stopped:
		m.fail("a capture has changed the state")
	case !m.busy && m.waiting > 0:
		m.fail("somebody waits and nothing happens")
	case !m.busy && m.goals > 0:
		m.fail("a request is neither answered nor under way")
	case m.s.Goal == ToDeleted && before.Goal != ToDeleted && m.goals == 0:
		m.fail("a delete was answered before it was done")
	case m.busy && m.goals > 0 && m.s.Goal == Free:
		m.fail("a request without a goal")
	case before.State == Deleted && m.s.State != Deleted:
		m.fail("came back from the dead")
	case before.Goal == ToDeleted && m.s.Goal != ToDeleted && !m.told:
		m.fail("a delete was forgotten")
	}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf(format+"\n%s", append(args, strings.Join(m.history, "\n"))...)
}

func FuzzNext(f *testing.F) {
	f.Add([]byte{3, 9, 2, 8, 0, 9, 9, 7, 9, 9})
	f.Add([]byte{3, 8, 0, 0x89, 9, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		m := &model{t: t, s: Snap{Enabled: true}}
		for _, b := range ops {
			ev := Event{Kind: EventKind(b&0x7f) % eventKinds}
			if ev.Kind == Done && b&0x80 != 0 {
				ev.Err = errOp
			}
			m.feed(ev)
		}
		// Whatever happened, a delete gets through once operations succeed.
		m.feed(Event{Kind: Delete})
		for range 10 {
			m.feed(Event{Kind: Done})
		}
		if m.s.State != Deleted {
			m.fail("cannot be deleted")
		}
	})
}

// TestEveryPath walks all reachable states with every event to a depth at which
// nothing new appears, and holds the diagram in the documentation to it.
func TestEveryPath(t *testing.T) {
	seen := map[Snap]*model{{Enabled: true}: {t: t, s: Snap{Enabled: true}}}
	edges := map[string]bool{}
	for todo := []Snap{{Enabled: true}}; len(todo) > 0; todo = todo[1:] {
		for k := range eventKinds {
			for _, err := range []error{nil, errOp} {
				ev := Event{Kind: k, Err: err}
				from := todo[0]
				if (err != nil && k != Done) || (k == Done && from.State.Settled()) {
					continue
				}
				m := seen[from].with(ev)
				if m.s.Holds > 2 || m.s.Waiting > 2 || m.s.Captures > 1 {
					continue
				}
				if from.State != m.s.State {
					edges[edge(from.State, m.s.State, ev)] = true
				}
				if _, ok := seen[m.s]; !ok {
					seen[m.s] = m
					todo = append(todo, m.s)
				}
			}
		}
	}
	for s := range Deleted + 1 {
		if !slices.ContainsFunc(keys(seen), func(x Snap) bool { return x.State == s }) {
			t.Errorf("state %v is never reached", s)
		}
	}
	golden(t, filepath.Join("..", "..", "docs", "reference", "states.md"), diagram(edges))
}

// with returns what becomes of a model by one more event.
func (m *model) with(ev Event) *model {
	m.t.Helper()
	next := *m
	next.history = slices.Clip(m.history)
	next.feed(ev)
	return &next
}

func replay(t *testing.T, evs []Event) *model {
	t.Helper()
	m := &model{t: t, s: Snap{Enabled: true}}
	for _, ev := range evs {
		m.feed(ev)
	}
	return m
}

func keys[K comparable, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

func edge(from, to State, ev Event) string {
	name := ev.Kind.String()
	if ev.Err != nil {
		name = "failed"
	}
	return fmt.Sprintf("    %v --> %v: %s", from, to, name)
}

func diagram(edges map[string]bool) string {
	byPair := map[string][]string{}
	for e := range edges {
		pair, label, _ := strings.Cut(e, ": ")
		byPair[pair] = append(byPair[pair], label)
	}
	pairs := keys(byPair)
	slices.Sort(pairs)
	var b strings.Builder
	b.WriteString("# States of an instance\n\nPrinted from the transition function by `go test ./internal/instance -update`.\n\n```mermaid\nstateDiagram-v2\n    [*] --> stopped\n")
	for _, p := range pairs {
		slices.Sort(byPair[p])
		fmt.Fprintf(&b, "%s: %s\n", p, strings.Join(byPair[p], ", "))
	}
	b.WriteString("    deleted --> [*]\n```\n")
	return b.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s is not what the code says; run the test with -update.\n%s", path, got)
	}
}

func TestTransitions(t *testing.T) {
	for _, c := range []struct {
		name string
		evs  []Event
		want Snap
	}{
		{"delete while booting stops the boot", []Event{{Kind: Start}, {Kind: Delete}, {Kind: Done, Err: errOp}}, Snap{State: Erasing, Goal: ToDeleted, Enabled: true}},
		{"delete while booting, too late to cancel", []Event{{Kind: Start}, {Kind: Delete}, {Kind: Done}}, Snap{State: Stopping, Goal: ToDeleted, Enabled: true}},
		{"connect while pausing wakes", []Event{{Kind: Start}, {Kind: Done}, {Kind: Release}, {Kind: Idle}, {Kind: Acquire}, {Kind: Done}}, Snap{State: Resuming, Enabled: true, Waiting: 1}},
		{"idle does nothing while held", []Event{{Kind: Start}, {Kind: Done}, {Kind: Idle}}, Snap{State: Running, Enabled: true, Holds: 1}},
		{"pause is obeyed while held", []Event{{Kind: Start}, {Kind: Done}, {Kind: Pause}, {Kind: Done}}, Snap{State: Paused, Enabled: true, Holds: 1}},
		{"a program that ends at once is not started again", []Event{{Kind: Start}, {Kind: Exited}, {Kind: Done}, {Kind: Done}}, Snap{State: Stopped, Enabled: true, Holds: 1}},
		{"a trigger starts it again", []Event{{Kind: Start}, {Kind: Done}, {Kind: Exited}, {Kind: Acquire}, {Kind: Done}}, Snap{State: Booting, Enabled: true, Holds: 1, Waiting: 1}},
		{"a crash loop bars triggers", []Event{{Kind: Start}, {Kind: Done}, {Kind: Release}, {Kind: Crashed}, {Kind: Done}, {Kind: Acquire}}, Snap{State: Stopped, Enabled: true, Barred: true}},
		{"an explicit start lifts the bar", []Event{{Kind: Start}, {Kind: Done}, {Kind: Release}, {Kind: Crashed}, {Kind: Done}, {Kind: Start}}, Snap{State: Booting, Enabled: true, Waiting: 1}},
		{"disabled stays down", []Event{{Kind: Disable}, {Kind: Acquire}}, Snap{State: Stopped}},
		{"start after disable wins", []Event{{Kind: Start}, {Kind: Done}, {Kind: Release}, {Kind: Disable}, {Kind: Start}, {Kind: Done}}, Snap{State: Booting, Enabled: true, Waiting: 1}},
		{"restart", []Event{{Kind: Start}, {Kind: Done}, {Kind: Release}, {Kind: Restart}, {Kind: Done}, {Kind: Done}}, Snap{State: Running, Enabled: true}},
		{"a machine that dies is stopped", []Event{{Kind: Start}, {Kind: Done}, {Kind: Died}}, Snap{State: Stopped, Enabled: true, Holds: 1}},
		{"death while pausing", []Event{{Kind: Start}, {Kind: Done}, {Kind: Release}, {Kind: Idle}, {Kind: Died}, {Kind: Done}}, Snap{State: Stopped, Enabled: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := replay(t, c.evs).s; got != c.want {
				t.Errorf("state = %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestGlossary holds the table of states in the docs to the states.
func TestGlossary(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	for state := range Deleted {
		row := regexp.MustCompile("(?m)^\\| `" + state.Wire() + "` \\|.*\\b" + state.String() + "\\b")
		if !row.Match(b) {
			t.Errorf("%s is not in the row of %s", state, state.Wire())
		}
	}
}
