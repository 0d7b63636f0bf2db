package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// safe is secrets in memory, and what the guest was told to start.
type safe struct {
	mu      sync.Mutex
	values  map[string]string
	broken  error
	spawned []guestproto.Spawn
}

func (s *safe) put(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = value
}

func (s *safe) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, name)
}

// last returns the environment of the process that was started last.
func (s *safe) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.spawned[len(s.spawned)-1].Env, " ")
}

func (s *safe) Resolve(_ context.Context, names []string) (map[string]secret.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	if slices.Contains(names, AllSecrets) {
		names = slices.Collect(maps.Keys(s.values))
	}
	out := map[string]secret.Value{}
	for _, n := range names {
		v, ok := s.values[n]
		if !ok {
			return nil, fault.New(fault.NotFound, "there is no secret %s", n)
		}
		out[n] = secret.New(v)
	}
	return out, nil
}

// spyLinker notes what guests start.
type spyLinker struct {
	Linker

	safe *safe
}

func (l spyLinker) Link(ctx context.Context, m vmm.Machine, magic guestproto.Magic, hello guestproto.Hello) (Guest, error) {
	g, err := l.Linker.Link(ctx, m, magic, hello)
	return spyGuest{g, l.safe}, err
}

type spyGuest struct {
	Guest

	safe *safe
}

func (g spyGuest) Spawn(ctx context.Context, req guestproto.Spawn) error {
	g.safe.mu.Lock()
	g.safe.spawned = append(g.safe.spawned, req)
	g.safe.mu.Unlock()
	return g.Guest.Spawn(ctx, req)
}

// newSafeSet returns a Set whose world has secrets, with programs that run for long.
func newSafeSet(values map[string]string) (*Set, *safe, *stubWorld) {
	w, v := newStubWorld(), &safe{values: values}
	w.runs = 24 * time.Hour
	world := w.world()
	world.Secrets, world.Linker = v, spyLinker{w, v}
	return NewSet(world), v, w
}

func launch(t *testing.T, s *Set, spec Spec) View {
	t.Helper()
	if spec.Command == nil {
		spec.Command = []string{"serve"}
	}
	v, err := s.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// execOnce runs a command in the instance x.
func execOnce(t *testing.T, s *Set, env map[string]string) {
	t.Helper()
	x, err := s.Exec(t.Context(), "x", ExecSpec{Command: []string{"true"}, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecretsInEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		secrets       []string
		env, execEnv  map[string]string
		program, exec string
	}{
		"not asked for": {nil, map[string]string{"E": "e"}, nil, "E=e", "E=e"},
		"by name":       {[]string{"B"}, map[string]string{"E": "e"}, map[string]string{"X": "x"}, "B=b\n E=e", "B=b\n E=e X=x"},
		"all":           {[]string{"*"}, nil, nil, "A=a B=b\n", "A=a B=b\n"},
		"all and one":   {[]string{"*", "A", "A"}, nil, nil, "A=a B=b\n", "A=a B=b\n"},
		"all but one":   {[]string{"*"}, map[string]string{"A": "mine"}, nil, "A=mine B=b\n", "A=mine B=b\n"},
		"exec's own":    {[]string{"A", "B"}, nil, map[string]string{"A": "mine"}, "A=a B=b\n", "A=mine B=b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v, _ := newSafeSet(map[string]string{"A": "a", "B": "b\n"})
				launch(t, s, Spec{Handle: "x", Secrets: c.secrets, Env: c.env})
				if got := v.last(); got != c.program {
					t.Errorf("program: %q, want %q", got, c.program)
				}
				execOnce(t, s, c.execEnv)
				if got := v.last(); got != c.exec {
					t.Errorf("exec: %q, want %q", got, c.exec)
				}
				r, err := s.Run(t.Context(), Spec{Command: []string{"true"}, Secrets: c.secrets, Env: c.env})
				if err != nil {
					t.Fatal(err)
				}
				if got := v.last(); got != c.program {
					t.Errorf("run: %q, want %q", got, c.program)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				closeSet(t, s, StopAll)
			})
		})
	}
}

// TestSecretsAreResolvedEachTime changes values between starts and execs.
func TestSecretsAreResolvedEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, _ := newSafeSet(map[string]string{"A": "1"})
		launch(t, s, Spec{Handle: "x", Secrets: []string{"A"}})
		v.put("A", "2")
		execOnce(t, s, nil)
		if got := v.last(); got != "A=2" {
			t.Errorf("exec: %q", got)
		}
		v.put("A", "3")
		if err := s.Restart(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if got := v.last(); got != "A=3" {
			t.Errorf("restart: %q", got)
		}
		closeSet(t, s, StopAll)
	})
}

func TestSecretsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, w := newSafeSet(map[string]string{"A": "a"})
		missing := func(what string, err error) {
			t.Helper()
			if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "no secret") {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err := s.Create(t.Context(), Spec{Handle: "x", Command: []string{"serve"}, Secrets: []string{"A", "NOT"}})
		missing("create", err)
		_, err = s.Run(t.Context(), Spec{Command: []string{"true"}, Secrets: []string{"NOT"}})
		missing("run", err)
		if w.boots != 0 || len(w.records) != 0 {
			t.Errorf("%d boots, %d records", w.boots, len(w.records))
		}
		checkNothingLeft(t, w, s)

		launch(t, s, Spec{Handle: "x", Secrets: []string{"A"}})
		if err := s.Pause(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		v.drop("A")
		_, err = s.Exec(t.Context(), "x", ExecSpec{Command: []string{"true"}})
		missing("exec", err)
		wantState(t, s, "x", Paused)
		missing("restart", s.Restart(t.Context(), "x"))
		wantState(t, s, "x", Stopped)
		if got, _ := s.Get("x"); !strings.Contains(got.Why, "no secret A") {
			t.Errorf("why = %q", got.Why)
		}
		if w.boots != 1 {
			t.Errorf("%d machines were started, one for nothing", w.boots)
		}
		v.put("A", "again")
		if err := s.Start(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		closeSet(t, s, StopAll)
	})
}

func TestSecretsThatDoNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		most := strings.Repeat("x", int(maxVariable)-len("FITS=\x00"))
		s, v, w := newSafeSet(map[string]string{
			"FITS": most, "BIGGER": strings.Repeat("x", len(most)), "MB": strings.Repeat("x", 1<<20), "NUL": "a\x00b",
			"P1": most, "P2": most, "P3": most, "P4": most, "P5": most,
		})
		for name, c := range map[string]struct {
			spec Spec
			msg  string
		}{
			"1 MB":     {Spec{Secrets: []string{"FITS", "MB"}}, "the secret MB of 1 MB is too large for an environment variable: Linux allows 128 KB"},
			"one more": {Spec{Secrets: []string{"BIGGER"}}, "the secret BIGGER of 128 KB is too large"},
			"NUL":      {Spec{Secrets: []string{"NUL"}}, "the secret NUL has a NUL"},
			"together": {Spec{Secrets: []string{"P1", "P2", "P3", "P4", "P5"}}, "are too large together"},
			"twice":    {Spec{Secrets: []string{"FITS"}, Env: map[string]string{"FITS": ""}}, "FITS is to be a secret and has a value"},
			"a value":  {Spec{Secrets: []string{"FITS=hunter2"}}, "a secret's name has no '='"},
			"no name":  {Spec{Secrets: []string{""}}, "bad name of a secret"},
		} {
			c.spec.Command = []string{"serve"}
			_, err := s.Create(t.Context(), c.spec)
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.msg) || fault.HintOf(err) == "" {
				t.Errorf("%s: %v, hint %q", name, err, fault.HintOf(err))
			}
			if strings.Contains(fmt.Sprint(err, fault.HintOf(err)), "hunter2") {
				t.Errorf("%s: the value is shown: %v", name, err)
			}
		}
		checkNothingLeft(t, w, s)
		launch(t, s, Spec{Handle: "x", Secrets: []string{"FITS"}})
		v.put("FITS", most+"x")
		if _, err := s.Exec(t.Context(), "x", ExecSpec{Command: []string{"true"}}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("exec: %v", err)
		}
		closeSet(t, s, StopAll)
	})
}

func TestSetAndAddSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, w := newSafeSet(map[string]string{"A": "a", "B": "b", "C": "c"})
		id := launch(t, s, Spec{Handle: "x", Secrets: []string{"A"}, Env: map[string]string{"E": "e"}}).ID
		check := func(what string, got Granted, err error, want Granted) {
			t.Helper()
			if err != nil || !slices.Equal(got.Names, want.Names) || got.Restart != want.Restart {
				t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
			}
			if kept := w.records[id].Spec.Secrets; !slices.Equal(kept, want.Names) {
				t.Errorf("%s: remembered are %q", what, kept)
			}
			if v, err := s.Get("x"); err != nil || !slices.Equal(v.Spec.Secrets, want.Names) {
				t.Errorf("%s: shown are %q, %v", what, v.Spec.Secrets, err)
			}
		}
		for range 2 { // the second changes nothing, and the program still has not got it
			g, err := s.SetSecrets(t.Context(), "x", []string{"B", "A", "B"})
			check("set", g, err, Granted{[]string{"A", "B"}, true})
		}
		execOnce(t, s, nil)
		if got := v.last(); got != "A=a B=b E=e" {
			t.Errorf("exec: %q", got)
		}
		g, err := s.SetSecrets(t.Context(), "x", []string{"A"})
		check("set back", g, err, Granted{[]string{"A"}, false})
		if g, err := s.AddSecrets(t.Context(), "x", []string{"C"}); fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" {
			t.Errorf("add while it runs: %+v, %v", g, err)
		}
		if err := s.Disable(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		g, err = s.AddSecrets(t.Context(), "x", []string{"C", "A"})
		check("add", g, err, Granted{[]string{"A", "C"}, false})
		if v, err := s.Get("x"); err != nil || v.Enabled {
			t.Errorf("it is enabled: %+v, %v", v, err)
		}
		if err := s.Start(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if got := v.last(); got != "A=a C=c E=e" {
			t.Errorf("program: %q", got)
		}
		for what, names := range map[string][]string{"missing": {"A", "NOT"}, "bad": {"A="}, "in the environment": {"E"}} {
			v.put("E", "secret")
			if g, err := s.SetSecrets(t.Context(), "x", names); err == nil {
				t.Errorf("%s: %+v", what, g)
			}
		}
		g, err = s.SetSecrets(t.Context(), "x", []string{})
		check("none", g, err, Granted{nil, true})
		if _, err := s.SetSecrets(t.Context(), "y", nil); fault.KindOf(err) != fault.NotFound {
			t.Errorf("no such instance: %v", err)
		}
		closeSet(t, s, StopAll)
	})
}

// TestSetSecretsWhileBooting changes what is given while a start is under way: it goes
// on with what it began with, and says so.
func TestSetSecretsWhileBooting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, _ := newSafeSet(map[string]string{"A": "a", "B": "b"})
		if _, err := s.Create(t.Context(), Spec{Handle: "x", Command: []string{"serve"}, Secrets: []string{"A"}}); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "x", Booting)
		if g, err := s.SetSecrets(t.Context(), "x", []string{"B"}); err != nil || !g.Restart {
			t.Errorf("%+v, %v", g, err)
		}
		if err := s.Start(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if got := v.last(); got != "A=a" {
			t.Errorf("program: %q", got)
		}
		if g, err := s.SetSecrets(t.Context(), "x", []string{"B"}); err != nil || !g.Restart {
			t.Errorf("again: %+v, %v", g, err)
		}
		closeSet(t, s, StopAll)
		if _, err := s.SetSecrets(t.Context(), "x", nil); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestSetSecretsNotRemembered has a store that fails: nothing changes.
func TestSetSecretsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, w := newSafeSet(map[string]string{"A": "a"})
		launch(t, s, Spec{Handle: "x"})
		full := errors.New("disk full")
		s.all()[0].world.Store = failingStore{w, full}
		if _, err := s.SetSecrets(t.Context(), "x", []string{"A"}); !errors.Is(err, full) {
			t.Errorf("err = %v", err)
		}
		if v, err := s.Get("x"); err != nil || len(v.Spec.Secrets) != 0 {
			t.Errorf("%q, %v", v.Spec.Secrets, err)
		}
		s.all()[0].world.Store = w
		closeSet(t, s, StopAll)
	})
}

type failingStore struct {
	Store

	err error
}

func (f failingStore) SaveInstance(context.Context, Record) error { return f.err }

// TestSecretsAreNotShown looks for a value in all that the core tells: logs, views,
// records, errors, changes.
func TestSecretsAreNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const planted = "planted-secret"
		var out bytes.Buffer
		s, v, w := newSafeSet(map[string]string{"A": planted, "LARGE": strings.Repeat(planted, 20000)})
		s.world.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		changes, stop := s.Watch()
		tell := func(x ...any) {
			for _, x := range x {
				b, err := json.Marshal(x)
				fmt.Fprintf(&out, "%+v %#v %s %v\n", x, x, b, err)
			}
		}
		view, err := s.Launch(t.Context(), Spec{Handle: "x", Command: []string{"serve"}, Secrets: []string{"A"}})
		tell(view.Record, err, w.records)
		execOnce(t, s, nil)
		_, err = s.SetSecrets(t.Context(), "x", []string{"A", "LARGE"})
		tell(err, fault.HintOf(err))
		w.spawnErr = errors.New("no such program")
		err = s.Restart(t.Context(), "x")
		tell(err)
		v.broken = fault.New(fault.Unavailable, "the stored value of the secret A is damaged")
		tell(s.Start(t.Context(), "x"), s.List()[0].Record, w.records, w.logs[view.ID].String())
		stop()
		for c := range changes {
			tell(c)
		}
		closeSet(t, s, StopAll)
		if strings.Contains(out.String(), planted) {
			t.Errorf("the secret is shown:\n%s", out.String())
		}
		if !strings.Contains(out.String(), "is damaged") {
			t.Error("nothing is told: this test looks at nothing")
		}
	})
}
