package instance

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// serveSpec is a persistent instance whose program listens on port 80.
func serveSpec(handle string, expose ...Expose) Spec {
	return Spec{Handle: handle, Command: []string{"serve"}, PauseAfter: time.Minute, Expose: expose}
}

// serving makes the world of a program that listens on port 80 for ever, and a Set in
// it with one instance, "web", whose port 80 is open on 8080.
func serving(t *testing.T) (*stubWorld, *Set) {
	t.Helper()
	w := newStubWorld()
	w.runs = 10000 * time.Hour
	s := NewSet(w.world())
	if _, err := s.Create(t.Context(), serveSpec("web", Expose{Guest: 80, Public: 8080})); err != nil {
		t.Fatal(err)
	}
	return w, s
}

// end closes a Set, and checks that neither ports nor networks are left.
func end(t *testing.T, w *stubWorld, s *Set) {
	t.Helper()
	if err := s.Close(t.Context(), StopAll); err != nil {
		t.Error(err)
	}
	nets, conns := w.nets.left()
	if open, forgotten := w.doors.left(); open != 0 || forgotten != 0 || nets != 0 || conns != 0 {
		t.Errorf("left: %d open and %d forgotten ports, %d networks, %d connections", open, forgotten, nets, conns)
	}
}

// must fails the test if a step of it did.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantPorts checks which ports an instance has, as its user sees them and as they are
// remembered, and whether they are open.
func wantPorts(t *testing.T, w *stubWorld, s *Set, ref string, open bool, want ...Expose) {
	t.Helper()
	v, err := s.Get(ref)
	if err != nil {
		t.Error(err)
		return
	}
	if !slices.Equal(v.Spec.Expose, want) {
		t.Errorf("ports of %s are %v, want %v", ref, v.Spec.Expose, want)
	}
	w.mu.Lock()
	stored := w.records[v.ID].Spec.Expose
	w.mu.Unlock()
	if !slices.Equal(stored, want) {
		t.Errorf("ports of %s are remembered as %v, want %v", ref, stored, want)
	}
	for _, e := range want {
		if isOpen := w.doors.at(e.Public) != nil; isOpen != open {
			t.Errorf("port %d of %s is open: %v, want %v", e.Public, ref, isOpen, open)
		}
	}
}

// TestPortsStay follows a port through the life of its instance.
func TestPortsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		port := Expose{Guest: 80, Public: 8080, Protocol: HTTP}
		wantPorts(t, w, s, "web", true, port) // while it boots
		door := w.doors.at(8080)
		for _, step := range []struct {
			name string
			do   func(context.Context, string) error
			open bool
		}{
			{"start", s.Start, true},
			{"pause", s.Pause, true},
			{"stop", s.Stop, true},
			{"resume", s.Resume, true},
			{"restart", s.Restart, true},
			{"disable", s.Disable, false},
			{"start again", s.Start, true},
		} {
			if err := step.do(t.Context(), "web"); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			wantPorts(t, w, s, "web", step.open, port)
			if step.name == "restart" && w.doors.at(8080) != door {
				t.Error("the port was closed in between")
			}
		}
		for m := range w.machines {
			must(t, m.Kill(t.Context()))
		}
		wantState(t, s, "web", Stopped)
		wantPorts(t, w, s, "web", true, port)
		must(t, s.Delete(t.Context(), "web"))
		if n, _ := w.doors.left(); n != 0 {
			t.Errorf("%d ports of a deleted instance are open", n)
		}
		end(t, w, s)
	})
}

func TestPortsOfTheNextDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, old := serving(t)
		must(t, old.Start(t.Context(), "web"))
		any, err := old.Expose(t.Context(), "web", Expose{Guest: 81, Protocol: TCP})
		must(t, err)
		_, err = old.Create(t.Context(), serveSpec("off", Expose{Guest: 80, Public: 8081}))
		must(t, err)
		must(t, old.Disable(t.Context(), "off"))
		must(t, old.Close(t.Context(), Keep))
		if n, _ := w.doors.left(); n != 0 || any.Public == 0 {
			t.Fatalf("%d ports are open without a daemon; chosen was %d", n, any.Public)
		}
		w.doors.take(8080, true)
		s := NewSet(w.world())
		must(t, s.Recover(t.Context()))
		wantState(t, s, "web", Running)
		wantPorts(t, w, s, "off", false, Expose{Guest: 80, Public: 8081, Protocol: HTTP})
		if w.doors.at(8080) != nil || w.doors.at(any.Public) == nil {
			t.Error("not those ports are open that were not taken")
		}
		v, _ := s.Get("web")
		if log := w.logs[v.ID].String(); !strings.Contains(log, "port 8080 of the host is closed") {
			t.Errorf("log = %q", log)
		}
		if err := s.Start(t.Context(), "web"); fault.KindOf(err) != fault.Conflict {
			t.Errorf("start without its port: %v", err)
		}
		if _, err := s.Expose(t.Context(), "web", Expose{Guest: 82}); err != nil {
			t.Errorf("one port that is taken keeps others closed: %v", err)
		}
		must(t, s.Unexpose(t.Context(), "web", 82))
		w.doors.take(8080, false)
		must(t, s.Start(t.Context(), "web"))
		wantPorts(t, w, s, "web", true, Expose{Guest: 80, Public: 8080, Protocol: HTTP}, any)
		end(t, w, s)
	})
}

// TestExposeInAnyState changes ports while an instance is in every state that lasts.
func TestExposeInAnyState(t *testing.T) {
	for name, c := range map[string]struct {
		enter func(*Set, context.Context, string) error
		state State
		open  bool
	}{
		"booting":  {func(*Set, context.Context, string) error { return nil }, Booting, true},
		"running":  {(*Set).Start, Running, true},
		"paused":   {(*Set).Pause, Paused, true},
		"stopped":  {(*Set).Stop, Stopped, true},
		"disabled": {(*Set).Disable, Stopped, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := serving(t)
				must(t, c.enter(s, t.Context(), "web"))
				web := Expose{Guest: 80, Public: 8080, Protocol: HTTP}
				db, err := s.Expose(t.Context(), "web", Expose{Guest: 5432, Protocol: TCP})
				must(t, err)
				wantPorts(t, w, s, "web", c.open, web, db)
				again, err := s.Expose(t.Context(), "web", Expose{Guest: 5432, Protocol: TCP})
				if err != nil || again != db {
					t.Errorf("asked for again: %v, %v, want %v", again, err, db)
				}
				moved, err := s.Expose(t.Context(), "web", Expose{Guest: 5432, Public: 15432, Protocol: TCP})
				must(t, err)
				wantPorts(t, w, s, "web", c.open, web, moved)
				if w.doors.at(db.Public) != nil {
					t.Error("the port is open under its old number, too")
				}
				must(t, s.Unexpose(t.Context(), "web", 5432))
				wantPorts(t, w, s, "web", c.open, web)
				if w.doors.at(moved.Public) != nil {
					t.Error("the port is open after unexpose")
				}
				if err := s.Unexpose(t.Context(), "web", 5432); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
					t.Errorf("unexposed twice: %v", err)
				}
				wantState(t, s, "web", c.state)
				end(t, w, s)
			})
		})
	}
}

func TestExposeChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		must(t, s.Start(t.Context(), "web"))
		door := w.doors.at(8080)
		visit := make(chan error, 1)
		go func() { visit <- door.visit(t.Context(), time.Hour) }()
		synctest.Wait()
		// Its protocol is a label: the port stays, with its connections.
		e, err := s.Expose(t.Context(), "web", Expose{Guest: 80, Protocol: TCP})
		if want := (Expose{Guest: 80, Public: 8080, Protocol: TCP}); err != nil || e != want || w.doors.at(8080) != door {
			t.Errorf("%+v, %v", e, err)
		}
		// 127.0.0.1 is what no address means.
		if e, err = s.Expose(t.Context(), "web", Expose{Guest: 80, Protocol: TCP, Bind: netip.MustParseAddr("::ffff:127.0.0.1")}); err != nil || e.Bind.IsValid() || w.doors.at(8080) != door {
			t.Errorf("%+v, %v", e, err)
		}
		// Another port that is taken: the old one stays.
		w.doors.take(8081, true)
		if _, err := s.Expose(t.Context(), "web", Expose{Guest: 80, Public: 8081}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("%v", err)
		}
		wantPorts(t, w, s, "web", true, e)
		select {
		case err := <-visit:
			t.Errorf("the connection ended: %v", err)
		default:
		}
		// The same number at another address cannot be open beside the old one.
		_, err = s.Expose(t.Context(), "web", Expose{Guest: 80, Protocol: TCP, Bind: netip.IPv4Unspecified()})
		must(t, err)
		wantPorts(t, w, s, "web", true, Expose{Guest: 80, Public: 8080, Protocol: TCP, Bind: netip.IPv4Unspecified()})
		if err := <-visit; err == nil {
			t.Error("a connection through a closed port goes on")
		}
		end(t, w, s)
	})
}

// TestExposeNotStored has a database that fails: what was open stays open, and nothing
// else is.
func TestExposeNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		must(t, s.Start(t.Context(), "web"))
		web := Expose{Guest: 80, Public: 8080, Protocol: HTTP}
		broken := errors.New("disk full")
		check := func(open bool) {
			t.Helper()
			for _, e := range []Expose{{Guest: 81, Public: 8081}, {Guest: 80, Public: 8081}, {Guest: 80, Protocol: TCP}} {
				w.storeErr = broken
				if _, err := s.Expose(t.Context(), "web", e); !errors.Is(err, broken) {
					t.Errorf("%+v: %v", e, err)
				}
				if err := s.Unexpose(t.Context(), "web", 80); !errors.Is(err, broken) {
					t.Error(err)
				}
				w.storeErr = nil
				wantPorts(t, w, s, "web", open, web)
				if w.doors.at(8081) != nil {
					t.Errorf("%+v is open", e)
				}
			}
		}
		check(true)
		must(t, s.Disable(t.Context(), "web"))
		check(false)
		w.storeErr = broken
		if _, err := s.Create(t.Context(), serveSpec("next", Expose{Guest: 1, Public: 8082})); !errors.Is(err, broken) || w.doors.at(8082) != nil {
			t.Errorf("create: %v", err)
		}
		w.storeErr = nil
		end(t, w, s)
	})
}

func TestPortConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		w.doors.take(9999, true)
		loop2 := netip.MustParseAddr("127.0.0.2")
		for name, c := range map[string]struct {
			e    Expose
			says string
			hint string
		}{
			"another instance's":               {Expose{Guest: 1, Public: 8080}, "port 8080 is taken by the instance web", "unexpose web 80"},
			"another's, at all addresses":      {Expose{Guest: 1, Public: 8080, Bind: netip.IPv4Unspecified()}, "taken by the instance web", "unexpose web 80"},
			"another program's":                {Expose{Guest: 1, Public: 9999}, "port 9999 is taken by another program", ""},
			"another program's, at an address": {Expose{Guest: 1, Public: 9999, Bind: loop2}, "by another program", ""},
		} {
			ok := Expose{Guest: 2, Public: 7777}
			_, err := s.Create(t.Context(), serveSpec("next", ok, c.e))
			if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), c.says) || !strings.Contains(fault.HintOf(err), c.hint) {
				t.Errorf("%s: %v (%s)", name, err, fault.HintOf(err))
			}
			_, err = s.Run(t.Context(), serveSpec("next", ok, c.e))
			if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: run: %v", name, err)
			}
			if w.doors.at(7777) != nil || s.Len() != 1 || w.boots != 0 {
				t.Errorf("%s: something is left", name)
			}
		}
		if _, err := s.Expose(t.Context(), "web", Expose{Guest: 81, Public: 8080}); !strings.Contains(err.Error(), "port 8080 leads to port 80 of web already") {
			t.Errorf("its own: %v", err)
		}
		if _, err := s.Expose(t.Context(), "web", Expose{Guest: 81, Public: 8080, Bind: loop2}); err != nil {
			t.Errorf("the same number at another address: %v", err)
		}
		end(t, w, s)
	})
}

// TestDisabledKeepsItsNumber lets another instance have the port of a disabled one.
func TestDisabledKeepsItsNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		must(t, s.Start(t.Context(), "web"))
		must(t, s.Unexpose(t.Context(), "web", 80))
		first, err := s.Expose(t.Context(), "web", Expose{Guest: 79})
		must(t, err)
		_, err = s.Expose(t.Context(), "web", Expose{Guest: 80, Public: 8080})
		must(t, err)
		must(t, s.Disable(t.Context(), "web"))
		_, err = s.Create(t.Context(), serveSpec("thief", Expose{Guest: 80, Public: 8080}))
		must(t, err)
		for range 8 { // whoever is found first
			if _, err := s.Create(t.Context(), serveSpec("next", Expose{Guest: 80, Public: 8080})); !strings.Contains(err.Error(), "the instance thief") {
				t.Error(err)
			}
		}
		must(t, s.Start(t.Context(), "thief"))
		for name, start := range map[string]func(context.Context, string) error{"start": s.Start, "restart": s.Restart} {
			before, _ := s.Get("web")
			err := start(t.Context(), "web")
			if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "taken by the instance thief") {
				t.Errorf("%s: %v", name, err)
			}
			if w.doors.at(first.Public) != nil {
				t.Errorf("%s that was refused opened a port", name)
			}
			after, _ := s.Get("web")
			if after.Enabled || after.State != Stopped || after.Updated != before.Updated || len(after.Holds) != 0 {
				t.Errorf("%s that was refused changed something: %+v", name, after)
			}
		}
		if w.boots != 2 {
			t.Errorf("%d boots, want 2", w.boots)
		}
		must(t, s.Disable(t.Context(), "thief"))
		must(t, s.Start(t.Context(), "web"))
		wantPorts(t, w, s, "web", true, first, Expose{Guest: 80, Public: 8080, Protocol: HTTP})
		end(t, w, s)
	})
}

func TestExposeRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		for name, e := range map[string]Expose{
			"no port":      {},
			"odd protocol": {Guest: 80, Protocol: "udp"},
			"zone":         {Guest: 80, Bind: netip.MustParseAddr("fe80::1%eth0")},
			"group":        {Guest: 80, Bind: netip.MustParseAddr("224.0.0.1")},
		} {
			if _, err := s.Expose(t.Context(), "web", e); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := s.Create(t.Context(), serveSpec("next", e)); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: create: %v", name, err)
			}
		}
		for name, all := range map[string][]Expose{
			"one twice":       {{Guest: 80}, {Guest: 80}},
			"one number":      {{Guest: 80, Public: 1}, {Guest: 81, Public: 1}},
			"one number, all": {{Guest: 80, Public: 1}, {Guest: 81, Public: 1, Bind: netip.IPv4Unspecified()}},
			"too many":        make([]Expose, MaxExposed+1),
		} {
			if _, err := s.Create(t.Context(), serveSpec("next", all...)); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		for g := range uint16(MaxExposed - 1) {
			_, err := s.Expose(t.Context(), "web", Expose{Guest: 1000 + g})
			must(t, err)
		}
		if _, err := s.Expose(t.Context(), "web", Expose{Guest: 2000}); fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" {
			t.Errorf("one too many: %v", err)
		}
		if _, err := s.Expose(t.Context(), "nobody", Expose{Guest: 80}); fault.KindOf(err) != fault.NotFound {
			t.Error(err)
		}
		if err := s.Unexpose(t.Context(), "nobody", 80); fault.KindOf(err) != fault.NotFound {
			t.Error(err)
		}
		must(t, s.Start(t.Context(), "web"))
		gone := make(chan error, 1)
		go func() { gone <- s.Delete(t.Context(), "web") }()
		synctest.Wait()
		if _, err := s.Expose(t.Context(), "web", Expose{Guest: 80}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("while it is being deleted: %v", err)
		}
		must(t, <-gone)
		bare := w.world()
		bare.Doors = nil
		without := NewSet(bare)
		if _, err := without.Create(t.Context(), serveSpec("next", Expose{Guest: 80})); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a world without ports: %v", err)
		}
		end(t, w, s)
		must(t, without.Close(t.Context(), StopAll))
	})
}

// TestExposeRun opens the ports of a run for as long as it lasts.
func TestExposeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = time.Hour
		s := NewSet(w.world())
		r, err := s.Run(t.Context(), serveSpec("one", Expose{Guest: 80, Public: 8080}))
		must(t, err)
		must(t, w.doors.at(8080).visit(t.Context(), time.Second))
		must(t, r.Close())
		if n, _ := w.doors.left(); n != 0 {
			t.Errorf("%d ports are open", n)
		}
		checkNothingLeft(t, w, s)
		end(t, w, s)
	})
}
