package tether

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// TestBrings sends to instances in every state. Frames come in order, once, and the
// instance wakes.
func TestBrings(t *testing.T) {
	for _, c := range []struct {
		state      instance.State
		hibernated bool
	}{{instance.Running, false}, {instance.Paused, false}, {instance.Stopped, true}, {instance.Stopped, false}} {
		w := newWorld(t)
		b := w.add(c.state)
		b.view.Hibernated = c.hibernated
		b.agent.refuses = 2
		for i := range 20 {
			if got := w.send(b, text("s"+strconv.Itoa(i%3), strconv.Itoa(i))); got.IngressSeq != int64(i)+1 || got.SessionID != "s"+strconv.Itoa(i%3) {
				t.Errorf("sent %d: %+v", i, got)
			}
		}
		for i := range 20 {
			if f := b.receive(); textOf(f) != strconv.Itoa(i) || f.Seq != int64(i)+1 {
				t.Errorf("%v: frame %d is %+v", c, i, f)
			}
		}
		if want := c.state != instance.Running; b.wakes > 0 != want {
			t.Errorf("%v: woken %d times", c, b.wakes)
		}
	}
}

func TestSameMessageTwice(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	f := text("s", "once")
	f.MsgID = "m1"
	first, again := w.send(b, f), w.send(b, f)
	if first != again {
		t.Errorf("%+v, then %+v", first, again)
	}
	w.send(b, text("s", "end"))
	if one, two := b.receive(), b.receive(); textOf(one) != "once" || textOf(two) != "end" {
		t.Errorf("the agent got %+v, %+v", one, two)
	}
	e := done("s", "answer", "m1")
	e.MsgID = "m1" // the agent's ids are its own
	if out, same := w.emit(b, e), w.emit(b, e); out.Seq != 3 || same.Seq != 3 {
		t.Errorf("emitted %d, %d", out.Seq, same.Seq)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Stopped)
	forged := done("s", "forged", "")
	if _, err := w.Send(t.Context(), "a", forged); fault.KindOf(err) != fault.Invalid {
		t.Errorf("the agent's frame from a client: %v", err)
	}
	if _, err := w.Emit(t.Context(), b.id(), text("s", "forged")); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a user's frame from an agent: %v", err)
	}
	b.view.Enabled = false
	if _, err := w.Send(t.Context(), "a", text("s", "x")); fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" {
		t.Errorf("to a disabled instance: %v", err)
	}
	b.view.Enabled, b.view.Barred = true, true
	if _, err := w.Send(t.Context(), "a", text("s", "x")); fault.KindOf(err) != fault.Conflict {
		t.Errorf("to one that crashed too often: %v", err)
	}
	if _, err := w.Send(t.Context(), "b", text("s", "x")); fault.KindOf(err) != fault.NotFound {
		t.Errorf("to nobody: %v", err)
	}
	if page, err := w.Poll(t.Context(), "a", all, 0); err != nil || len(page.Frames) != 0 {
		t.Errorf("stored: %+v, %v", page, err)
	}
}

// TestWaitsForTheInstance sends to an instance that does not come up. The message arrives
// when it has been started by hand.
func TestWaitsForTheInstance(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Stopped)
	b.refuse = errors.New("no memory")
	w.send(b, text("s", "hello"))
	b.w.mu.Lock()
	b.refuse = nil
	b.w.mu.Unlock()
	b.become(instance.Running)
	if f := b.receive(); textOf(f) != "hello" {
		t.Errorf("%+v", f)
	}
}

// TestDaemonDies ends the daemon while frames wait; the next brings them, in order.
func TestDaemonDies(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	b.agent.deaf = true
	for i := range 5 {
		w.send(b, text("s", strconv.Itoa(i)))
	}
	w.shut()
	b.agent.deaf = false
	w.open()
	for i := range 5 {
		if f := b.receive(); textOf(f) != strconv.Itoa(i) {
			t.Errorf("frame %d is %+v", i, f)
		}
	}
	if out := w.emit(b, done("s", "x", "")); out.Seq != 6 {
		t.Errorf("seq goes on at %d", out.Seq)
	}
}

// settle lets everything in a bubble come to rest.
func (w *world) settle() { w.t.Helper(); synctest.Wait() }

func inBubble(t *testing.T, do func(t *testing.T, w *world, b *box)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := w.add(instance.Running)
		do(t, w, b)
	})
}

// TestHeldWhileAtWork: from the receipt of a message on the instance is held awake, until
// the agent has answered it, is idle, or has been silent for long.
func TestHeldWhileAtWork(t *testing.T) {
	presence := func(state string) api.Frame {
		return api.Frame{Type: api.FramePresence, Session: api.Session{Channel: "host", ID: "s"}, Payload: []byte(`{"state":"` + state + `"}`)}
	}
	for name, c := range map[string]struct {
		ends func(w *world, b *box, sent api.TetherSent)
	}{
		"answered":          {func(w *world, b *box, sent api.TetherSent) { w.emit(b, done("s", "x", sent.MsgID)) }},
		"answered anything": {func(w *world, b *box, _ api.TetherSent) { w.emit(b, done("s", "x", "")) }},
		"idle":              {func(w *world, b *box, _ api.TetherSent) { w.emit(b, presence("idle")) }},
		"silent":            {func(*world, *box, api.TetherSent) { time.Sleep(2*time.Minute + time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world, b *box) {
				t.Helper()
				sent := w.send(b, text("s", "work"))
				b.receive()
				for range 5 { // it works for long, and says so
					time.Sleep(100 * time.Second)
					w.emit(b, part("s", "."))
					w.emit(b, done("other", "not this", ""))
					w.emit(b, presence("working"))
					w.settle()
					if b.held() != 1 {
						t.Fatalf("held %d times while at work", b.held())
					}
				}
				c.ends(w, b, sent)
				w.settle()
				if b.held() != 0 {
					t.Errorf("held %d times after", b.held())
				}
			})
		})
	}
}

func TestCancelHoldsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		w.send(b, api.Frame{Type: api.FrameCancel, Session: api.Session{Channel: "host", ID: "s"}})
		b.receive()
		w.settle()
		if b.held() != 0 {
			t.Errorf("held %d times", b.held())
		}
	})
}

// TestNobodyListens: an instance without an agent is let go after a while. What waits is
// brought when there is one.
func TestNobodyListens(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		b.agent.mu.Lock()
		b.agent.deaf = true
		b.agent.mu.Unlock()
		w.send(b, text("s", "1"))
		time.Sleep(119 * time.Second)
		if b.held() != 1 {
			t.Errorf("held %d times after 119 s", b.held())
		}
		time.Sleep(2 * time.Second)
		w.settle()
		if b.held() != 0 {
			t.Errorf("held %d times after 121 s", b.held())
		}
		b.agent.mu.Lock()
		b.agent.deaf = false
		b.agent.mu.Unlock()
		time.Sleep(time.Hour)
		if n := len(b.agent.got); n != 0 {
			t.Errorf("%d frames without a reason", n)
		}
		w.send(b, text("s", "2"))
		if one, two := b.receive(), b.receive(); textOf(one) != "1" || textOf(two) != "2" {
			t.Errorf("%+v, %+v", one, two)
		}
	})
}

// TestNobodyListensAfterAWake: that the instance came up for a message is no reason to bring
// it anew.
func TestNobodyListensAfterAWake(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		b.become(instance.Paused)
		b.agent.mu.Lock()
		b.agent.deaf = true
		b.agent.mu.Unlock()
		w.send(b, text("s", "1"))
		w.settle()
		if b.wakes != 1 || b.held() != 1 {
			t.Errorf("woken %d times, held %d times", b.wakes, b.held())
		}
		time.Sleep(121 * time.Second)
		w.settle()
		if b.held() != 0 {
			t.Errorf("held %d times after 121 s", b.held())
		}
	})
}

// TestSleepAfterSpeaking: what the agent said before a user's pause does not wake it.
func TestSleepAfterSpeaking(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		b.agent.mu.Lock()
		b.agent.deaf = true
		b.agent.mu.Unlock()
		w.send(b, text("s", "waits"))
		w.settle()
		w.emit(b, done("s", "by the way", ""))
		w.settle()
		b.become(instance.Paused)
		w.settle()
		if b.held() != 0 || b.wakes != 0 {
			t.Errorf("held %d times, woken %d times", b.held(), b.wakes)
		}
	})
}

// TestExplicitSleep: a user's pause ends holds, and keeps what waits for the next wake.
func TestExplicitSleep(t *testing.T) {
	for _, s := range []instance.State{instance.Paused, instance.Stopped} {
		inBubble(t, func(t *testing.T, w *world, b *box) {
			t.Helper()
			w.send(b, text("s", "at work on this"))
			b.receive()
			b.agent.mu.Lock()
			b.agent.deaf = true
			b.agent.mu.Unlock()
			w.send(b, text("s", "waits"))
			w.settle()
			b.become(s)
			w.settle()
			if b.held() != 0 {
				t.Fatalf("held %d times in %v", b.held(), s)
			}
			b.agent.mu.Lock()
			b.agent.deaf = false
			b.agent.mu.Unlock()
			time.Sleep(time.Minute)
			w.settle()
			if b.wakes != 0 || len(b.agent.got) != 0 {
				t.Errorf("woken %d times, got %d", b.wakes, len(b.agent.got))
			}
			b.become(instance.Running)
			if f := b.receive(); textOf(f) != "waits" {
				t.Errorf("%+v", f)
			}
			if b.held() != 1 {
				t.Errorf("held %d times when it goes on", b.held())
			}
		})
	}
}

// TestRestart: a restart ends the hold with its machine; what waits is brought to the next.
func TestRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		w.send(b, text("s", "at work on this"))
		b.receive()
		w.settle()
		<-b.visited
		b.become(instance.Stopping)
		b.become(instance.Booting)
		w.settle()
		if b.held() != 0 {
			t.Errorf("held %d times while it restarts", b.held())
		}
		b.become(instance.Running)
		w.settle()
		if b.held() != 0 {
			t.Errorf("held %d times for work that is lost", b.held())
		}
		w.send(b, text("s", "after"))
		if f := b.receive(); textOf(f) != "after" {
			t.Errorf("%+v", f)
		}
		<-b.visited
	})
}

// TestEndsByItself: an instance whose machine or program ends over a message runs again, so
// that its agent goes on. It does so a few times.
func TestEndsByItself(t *testing.T) {
	for _, whole := range []bool{true, false} {
		inBubble(t, func(t *testing.T, w *world, b *box) {
			t.Helper()
			end := func() {
				if whole {
					b.becomes(instance.Stopped, "died")
				} else {
					b.becomes(instance.Stopping, "exited")
					b.becomes(instance.Stopped, "done")
				}
				w.settle()
			}
			first := w.send(b, text("s", "at work on this"))
			b.receive()
			w.settle()
			for range 3 {
				end()
				if b.view.State != instance.Running || b.held() != 1 {
					t.Fatalf("it is %v, held %d times", b.view.State, b.held())
				}
			}
			w.emit(b, done("s", "at last", first.MsgID))
			w.settle()
			if end(); b.view.State != instance.Stopped || b.held() != 0 {
				t.Fatalf("with nothing to do it is %v, held %d times", b.view.State, b.held())
			}
			w.send(b, text("s", "this ends it"))
			b.receive()
			w.settle()
			for range 4 {
				end()
			}
			if b.view.State != instance.Stopped || b.held() != 0 {
				t.Errorf("at last it is %v, held %d times", b.view.State, b.held())
			}
		})
	}
}

// TestGone: who waits for a deleted instance is told, and its courier ends.
func TestGone(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	w.send(b, text("s", "x"))
	b.receive()
	failed := make(chan error, 1)
	go func() {
		_, err := w.Poll(context.Background(), "a", after(1), MaxWait)
		failed <- err
	}()
	<-b.visited
	if err := w.db.DeleteInstance(t.Context(), b.id()); err != nil {
		t.Fatal(err)
	}
	b.become(instance.Deleted)
	if err := <-failed; fault.KindOf(err) != fault.NotFound {
		t.Errorf("the poll ends with %v", err)
	}
	<-b.idle
	if _, err := w.Emit(t.Context(), b.id(), done("s", "x", "")); fault.KindOf(err) != fault.NotFound {
		t.Errorf("emit of a deleted one: %v", err)
	}
}

// TestWorkGoesOn: a new daemon holds an agent awake that has taken a message and not
// answered.
func TestWorkGoesOn(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	sent := w.send(b, text("s", "work"))
	b.receive()
	w.shut()
	<-b.idle
	<-b.visited
	w.open()
	<-b.visited
	w.emit(b, done("s", "x", sent.MsgID))
	<-b.idle
	w.shut()
	w.open()
	if w.known(b.id()) != nil {
		t.Error("a new daemon takes answered work for open")
	}
}

func TestTooMuchWaits(t *testing.T) {
	w := &world{t: t, path: t.TempDir() + "/db", all: map[instance.ID]*box{}, watchers: map[chan instance.Change]bool{}, limits: Limits{Waiting: 3}}
	w.open()
	t.Cleanup(w.shut)
	b := w.add(instance.Running)
	b.agent.deaf = true
	for range 3 {
		w.send(b, text("s", "x"))
	}
	if _, err := w.Send(t.Context(), "a", text("s", "x")); fault.KindOf(err) != fault.Exhausted || fault.HintOf(err) == "" {
		t.Errorf("one too many: %v", err)
	}
}
