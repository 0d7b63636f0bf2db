package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// visits has many clients come to a port at once; they stay for a while.
func visits(t *testing.T, d *stubDoor, n int, stay time.Duration) *sync.WaitGroup {
	t.Helper()
	wg := new(sync.WaitGroup)
	for range n {
		wg.Go(func() {
			if err := d.visit(t.Context(), stay); err != nil {
				t.Errorf("visit: %v", err)
			}
		})
	}
	return wg
}

// wantClients checks how many connections hold "web" awake.
func wantClients(t *testing.T, s *Set, want int) {
	t.Helper()
	synctest.Wait()
	v, err := s.Get("web")
	if err != nil || v.Clients != want || len(v.Holds) != want {
		t.Errorf("%d connections and %d holds, want %d; %v", v.Clients, len(v.Holds), want, err)
	}
}

// TestOneWakeForMany has many clients come while an instance sleeps, boots or resumes.
func TestOneWakeForMany(t *testing.T) {
	for _, from := range []State{Booting, Stopped, Paused} {
		t.Run(from.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := serving(t)
				boots, resumes := 1, 0
				if from == Stopped {
					must(t, s.Start(t.Context(), "web"))
					must(t, s.Stop(t.Context(), "web"))
					boots++
				}
				if from == Paused {
					must(t, s.Start(t.Context(), "web"))
					must(t, s.Pause(t.Context(), "web"))
					resumes++
				}
				wantState(t, s, "web", from)
				clients := visits(t, w.doors.at(8080), 50, time.Hour)
				time.Sleep(time.Minute)
				wantClients(t, s, 50)
				if v, _ := s.Get("web"); v.Holds[0].Owner != "connection to port 80" {
					t.Errorf("owner = %q", v.Holds[0].Owner)
				}
				time.Sleep(30 * time.Minute) // silent, and held awake
				wantState(t, s, "web", Running)
				clients.Wait()
				wantClients(t, s, 0)
				if w.boots != boots || w.resumes != resumes {
					t.Errorf("%d boots and %d resumes, want %d and %d", w.boots, w.resumes, boots, resumes)
				}
				time.Sleep(61 * time.Second)
				wantState(t, s, "web", Paused)
				end(t, w, s)
			})
		})
	}
}

// TestConnectionReleasesOnce closes one of two connections in every way, over and over.
func TestConnectionReleasesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		connect := w.doors.at(8080).connect
		one, err := connect(t.Context())
		must(t, err)
		two, err := connect(t.Context())
		must(t, err)
		wantClients(t, s, 2)
		must(t, one.Close())
		one.Abort()
		if err := one.Close(); err == nil {
			t.Error("closed twice without an error")
		}
		wantClients(t, s, 1)
		two.Abort()
		_ = two.Close()
		wantClients(t, s, 0)
		end(t, w, s)
	})
}

// TestRedial dials ports of programs that listen late, early and never.
func TestRedial(t *testing.T) {
	for name, c := range map[string]struct {
		port     *stubPort
		patience time.Duration // of the client, from the program's start; 0 is for ever
		takes    time.Duration // from the program's start
		kind     fault.Kind    // "" is success
	}{
		"listens at once":         {&stubPort{}, 0, 0, ""},
		"listens late":            {&stubPort{after: 3 * time.Second}, 0, 3 * time.Second, ""},
		"on loopback":             {&stubPort{loopback: true}, 0, 0, ""},
		"on loopback, late":       {&stubPort{loopback: true, after: 3 * time.Second}, 0, 3 * time.Second, ""},
		"listens never":           {nil, 0, 30 * time.Second, fault.Unavailable},
		"listens too late":        {&stubPort{after: time.Minute}, 0, 30 * time.Second, fault.Unavailable},
		"client cannot wait":      {nil, 10 * time.Second, 10 * time.Second, fault.Timeout},
		"another error":           {&stubPort{err: syscall.EHOSTUNREACH}, 0, 0, fault.Internal},
		"another error, loopback": {&stubPort{loopback: true, err: fault.New(fault.Exhausted, "no streams")}, 0, 0, fault.Exhausted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := serving(t)
				must(t, s.Start(t.Context(), "web"))
				began := time.Now()
				if w.nets.quiet(); c.port != nil {
					w.nets.set(80, *c.port)
				}
				ctx := t.Context()
				if c.patience > 0 {
					var cancel func()
					ctx, cancel = context.WithTimeout(ctx, c.patience)
					defer cancel()
				}
				err := w.doors.at(8080).visit(ctx, 0)
				if took := time.Since(began); took < c.takes || took > c.takes+maxRedial+10*time.Millisecond {
					t.Errorf("took %v, want about %v", took, c.takes)
				}
				if (err == nil) != (c.kind == "") || err != nil && fault.KindOf(err) != c.kind {
					t.Errorf("%v is %s, want %q", err, fault.KindOf(err), c.kind)
				}
				if late := fault.KindOf(err) == fault.Timeout; (late || errors.Is(err, syscall.ECONNREFUSED)) && fault.BlameOf(err) != fault.Program {
					t.Errorf("%v is the fault of %q", err, fault.BlameOf(err))
				}
				wantClients(t, s, 0)
				end(t, w, s)
			})
		})
	}
}

// TestManyRedial has many clients wait for a program to listen: those that are refused
// while the first gets through are not sent away.
func TestManyRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		w.nets.set(80, stubPort{after: 100 * time.Millisecond})
		must(t, s.Start(t.Context(), "web"))
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 997 * time.Microsecond)
				if err := w.doors.at(8080).visit(t.Context(), time.Second); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		end(t, w, s)
	})
}

// refusedAtOnce dials a port on which nothing listens.
func refusedAtOnce(t *testing.T, w *stubWorld, why string) {
	t.Helper()
	began := time.Now()
	err := w.doors.at(8080).visit(t.Context(), 0)
	if !errors.Is(err, syscall.ECONNREFUSED) || fault.BlameOf(err) != fault.Program || time.Since(began) > 10*time.Millisecond {
		t.Errorf("%s: %v after %v", why, err, time.Since(began))
	}
}

// TestRefusedAtOnce dials where there is nothing to wait for.
func TestRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		must(t, w.doors.at(8080).visit(t.Context(), 0))
		w.nets.quiet()
		refusedAtOnce(t, w, "a port that has answered")
		must(t, s.Stop(t.Context(), "web"))
		w.nets.set(80, stubPort{after: time.Second})
		if err := w.doors.at(8080).visit(t.Context(), 0); err != nil {
			t.Errorf("the next program is not given time: %v", err)
		}
		must(t, s.Close(t.Context(), Keep))
		w.nets.quiet()
		s = NewSet(w.world())
		must(t, s.Recover(t.Context()))
		refusedAtOnce(t, w, "a machine that was adopted")
		must(t, s.Pause(t.Context(), "web"))
		must(t, s.Resume(t.Context(), "web"))
		refusedAtOnce(t, w, "an adopted machine that was resumed")
		must(t, s.Pause(t.Context(), "web"))
		must(t, s.Close(t.Context(), Keep))
		s = NewSet(w.world())
		must(t, s.Recover(t.Context()))
		wantState(t, s, "web", Paused)
		w.nets.set(80, stubPort{})
		must(t, w.doors.at(8080).visit(t.Context(), 0))
		end(t, w, s)
	})
}

// TestPauseIsNoDelay pauses a program before it listens: the time in which it does not
// run is not counted against it.
func TestPauseIsNoDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		must(t, s.Start(t.Context(), "web"))
		time.Sleep(10 * time.Second)
		must(t, s.Pause(t.Context(), "web"))
		time.Sleep(time.Hour)
		w.nets.set(80, stubPort{after: time.Hour + 25*time.Second})
		if err := w.doors.at(8080).visit(t.Context(), 0); err != nil {
			t.Errorf("visit: %v", err)
		}
		must(t, s.Pause(t.Context(), "web"))
		time.Sleep(time.Hour)
		w.nets.set(80, stubPort{after: 24 * time.Hour})
		began := time.Now()
		_, err := s.Expose(t.Context(), "web", Expose{Guest: 81, Public: 8081})
		must(t, err)
		if err := w.doors.at(8081).visit(t.Context(), 0); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("visit: %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a program was given %v more", took)
		}
		end(t, w, s)
	})
}

// TestForkListensLate forks an instance whose program does not listen yet: the clients of the
// fork wait, for as long as those of the source would.
func TestForkListensLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		w.nets.quiet()
		must(t, s.Start(t.Context(), "web"))
		time.Sleep(10 * time.Second)
		forks, _, err := s.Fork(t.Context(), "web", ForkSpec{Names: []string{"kid"}})
		must(t, err)
		began := time.Now()
		time.AfterFunc(3*time.Second, func() { w.nets.set(80, stubPort{}) })
		port := forks[0].Spec.Expose[0].Public
		if err := w.doors.at(port).visit(t.Context(), 0); err != nil {
			t.Errorf("visit: %v after %v", err, time.Since(began))
		}
		w.nets.quiet()
		began = time.Now()
		_, err = s.Expose(t.Context(), "kid", Expose{Guest: 81, Public: 8081})
		must(t, err)
		if err := w.doors.at(8081).visit(t.Context(), 0); !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > 20*time.Second {
			t.Errorf("a port on which nothing listens: %v after %v", err, time.Since(began))
		}
		end(t, w, s)
	})
}

// TestExplicitRequestsCutOff has clients with connections, and clients that are still
// dialling, when the user asks for something.
func TestExplicitRequestsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*Set, context.Context, string) error
		want State
	}{
		"pause":   {(*Set).Pause, Paused},
		"stop":    {(*Set).Stop, Stopped},
		"disable": {(*Set).Disable, Stopped},
		"restart": {(*Set).Restart, Running},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := serving(t)
				_, err := s.Expose(t.Context(), "web", Expose{Guest: 81, Public: 8081})
				must(t, err)
				must(t, s.Start(t.Context(), "web"))
				open, pending := make(chan error, 1), make(chan error, 1)
				go func() { open <- w.doors.at(8080).visit(t.Context(), time.Hour) }()
				go func() { pending <- w.doors.at(8081).visit(t.Context(), time.Hour) }()
				time.Sleep(100 * time.Millisecond)
				wantClients(t, s, 2)
				must(t, c.do(s, t.Context(), "web"))
				if err := <-open; !errors.Is(err, io.EOF) {
					t.Errorf("the connection: %v", err)
				}
				if err := <-pending; fault.KindOf(err) != fault.Conflict {
					t.Errorf("the dial: %v", err)
				}
				wantClients(t, s, 0)
				time.Sleep(time.Second)
				wantState(t, s, "web", c.want)
				end(t, w, s)
			})
		})
	}
}

// TestMachineEndsUnderClients tells clients why their machine is gone.
func TestMachineEndsUnderClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs, w.dieAfter = time.Hour, 5*time.Second
		s := NewSet(w.world())
		_, err := s.Create(t.Context(), serveSpec("web", Expose{Guest: 80, Public: 8080}, Expose{Guest: 81, Public: 8081}))
		must(t, err)
		open, pending := make(chan error, 1), make(chan error, 1)
		go func() { open <- w.doors.at(8080).visit(t.Context(), time.Hour) }()
		go func() { pending <- w.doors.at(8081).visit(t.Context(), time.Hour) }()
		if err := <-open; !errors.Is(err, io.EOF) {
			t.Errorf("the connection: %v", err)
		}
		if err := <-pending; fault.BlameOf(err) != fault.Guest {
			t.Errorf("the dial: %v", err)
		}
		wantState(t, s, "web", Stopped)
		w.dieAfter = 0
		must(t, w.doors.at(8080).visit(t.Context(), 0))
		wantState(t, s, "web", Running)
		if w.boots != 2 {
			t.Errorf("%d boots, want 2", w.boots)
		}
		end(t, w, s)
	})
}

// TestAwake holds an instance without a connection, and has connections that hold
// nothing.
func TestAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		a, err := s.Awake(t.Context(), "web", "HTTP request")
		must(t, err)
		c, err := a.Dial(t.Context(), 80)
		must(t, err)
		time.Sleep(time.Hour)
		wantClients(t, s, 1)
		wantState(t, s, "web", Running)
		pending := make(chan error, 1)
		w.nets.set(81, stubPort{after: 2 * time.Hour})
		must(t, s.Restart(t.Context(), "web"))
		a.Release()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlives its machine")
		}
		_ = c.Close()
		if a, err = s.Awake(t.Context(), "web", "HTTP request"); err != nil {
			t.Fatal(err)
		}
		if c, err = a.Dial(t.Context(), 80); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := a.Dial(t.Context(), 81)
			pending <- err
		}()
		time.Sleep(time.Second)
		a.Release()
		a.Release()
		if err := <-pending; !errors.Is(err, errReleased) {
			t.Errorf("a dial outlives the hold: %v", err)
		}
		if _, err := a.Dial(t.Context(), 80); !errors.Is(err, errReleased) {
			t.Errorf("a dial after the hold: %v", err)
		}
		wantClients(t, s, 0)
		time.Sleep(time.Hour)
		wantState(t, s, "web", Paused)
		if _, conns := w.nets.left(); conns != 1 {
			t.Errorf("%d connections after an idle pause, want 1", conns)
		}
		must(t, c.Close())
		if _, err := s.Awake(t.Context(), "nobody", ""); fault.KindOf(err) != fault.NotFound {
			t.Error(err)
		}
		end(t, w, s)
	})
}

// TestClientLeavesWhileWaking gives up at every moment of a boot.
func TestClientLeavesWhileWaking(t *testing.T) {
	for after := time.Duration(0); after < 1300*time.Millisecond; after += 50 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			w, s := serving(t)
			left := errors.New("the client left")
			ctx, cancel := context.WithTimeoutCause(t.Context(), after, left)
			defer cancel()
			if err := w.doors.at(8080).visit(ctx, 0); err != nil && !errors.Is(err, left) {
				t.Errorf("after %v: %v", after, err)
			}
			time.Sleep(5 * time.Second)
			wantState(t, s, "web", Running)
			wantClients(t, s, 0)
			end(t, w, s)
		})
	}
}

func TestWakeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		must(t, s.Start(t.Context(), "web"))
		door := w.doors.at(8080)
		connect := door.connect
		must(t, s.Disable(t.Context(), "web"))
		if _, err := connect(t.Context()); fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" {
			t.Errorf("a client that came just before: %v", err)
		}
		must(t, s.Start(t.Context(), "web"))
		must(t, s.Stop(t.Context(), "web"))
		w.startErr = fault.New(fault.Exhausted, "no memory").By(fault.Host)
		if _, err := connect(t.Context()); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("no machine: %v", err)
		}
		w.startErr = nil
		must(t, s.Delete(t.Context(), "web"))
		if _, err := connect(t.Context()); fault.KindOf(err) != fault.NotFound {
			t.Errorf("a client of a deleted instance: %v", err)
		}
		end(t, w, s)
	})
}

// TestDaemonLeavesClients ends a daemon while clients dial: they are told why, and the
// machine stays.
func TestDaemonLeavesClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := serving(t)
		must(t, s.Start(t.Context(), "web"))
		w.nets.quiet()
		awake, err := s.Awake(t.Context(), "web", "HTTP request")
		must(t, err)
		pending := make(chan error, 1)
		go func() {
			_, err := awake.Dial(t.Context(), 80)
			pending <- err
		}()
		time.Sleep(time.Second)
		must(t, s.Close(t.Context(), Keep))
		if err := <-pending; !errors.Is(err, errClosing) {
			t.Errorf("the dial: %v", err)
		}
		awake.Release()
		s = NewSet(w.world())
		must(t, s.Recover(t.Context()))
		wantState(t, s, "web", Running)
		end(t, w, s)
	})
}

// TestNothingWakesBehindTheLast stops all instances while clients come.
func TestNothingWakesBehindTheLast(t *testing.T) {
	for at := time.Duration(0); at < 100*time.Millisecond; at += 5 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			w, s := serving(t)
			must(t, s.Start(t.Context(), "web"))
			door := w.doors.at(8080)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 5 * time.Millisecond)
					_ = door.visit(t.Context(), time.Hour)
				})
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 5 * time.Millisecond)
					if i%2 == 0 {
						_ = s.Restart(t.Context(), "web")
					} else {
						_ = s.Start(t.Context(), "web")
					}
				})
			}
			time.Sleep(at)
			end(t, w, s)
			wg.Wait()
			if m, _ := w.left(); m != 0 {
				t.Errorf("%d machines run behind a stop of all at %v", m, at)
			}
		})
	}
}

func TestNetworkFails(t *testing.T) {
	for name, set := range map[string]func(*stubWorld){
		"open": func(w *stubWorld) { w.nets.openErr = errors.New("out of luck") },
		"card": func(w *stubWorld) { w.cardErr = errors.New("out of luck") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := serving(t)
				must(t, s.Start(t.Context(), "web"))
				must(t, s.Stop(t.Context(), "web"))
				set(w)
				if err := w.doors.at(8080).visit(t.Context(), 0); err == nil {
					t.Error("a machine without a network was reached")
				}
				wantState(t, s, "web", Stopped)
				if m, _ := w.left(); m != 0 {
					t.Errorf("%d machines", m)
				}
				end(t, w, s)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = time.Hour
		bare := w.world()
		bare.Networks = nil
		s := NewSet(bare)
		_, err := s.Create(t.Context(), serveSpec("web", Expose{Guest: 80, Public: 8080}))
		must(t, err)
		if err := w.doors.at(8080).visit(t.Context(), 0); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a world without networks: %v", err)
		}
		end(t, w, s)
	})
}

// TestWiresRaces hangs up while attempts come true and connections are closed.
func TestWiresRaces(t *testing.T) {
	w := newWires()
	n := &stubNet{of: newStubNets(nil), conns: map[*stubConn]bool{}}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 500 {
				attempt := w.attempt()
				n.of.mu.Lock()
				c := n.accept().(*stubConn)
				n.of.mu.Unlock()
				freed := 0
				got, err := w.add(attempt, c, 80)
				if err != nil {
					if !errors.Is(err, ErrSuperseded) {
						t.Error(err)
					}
					continue
				}
				got.free = func() { freed++ }
				if j%2 == 0 {
					got.Abort()
				}
				_ = got.Close()
				if freed != 1 {
					t.Errorf("freed %d times", freed)
				}
			}
			w.hangUp(fmt.Errorf("%d: %w", i, ErrSuperseded))
		})
	}
	for range 100 {
		w.hangUp(ErrSuperseded)
	}
	wg.Wait()
	attempt := w.attempt()
	w.hangUp(ErrEnded)
	if _, err := w.add(attempt, n.accept().(*stubConn), 80); !errors.Is(err, ErrEnded) {
		t.Errorf("a connection that came true after all were hung up: %v", err)
	}
	if len(w.conns) != 0 || len(n.conns) != 0 {
		t.Errorf("%d wires and %d connections are left", len(w.conns), len(n.conns))
	}
}
