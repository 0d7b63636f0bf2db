package instance

import (
	"context"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// echoAPI answers each connection with the id of whose it is, and keeps it.
type echoAPI struct{ now, most atomic.Int32 }

func (e *echoAPI) Serve(ctx context.Context, id ID, conn net.Conn) {
	if n := e.now.Add(1); n > e.most.Load() {
		e.most.Store(n)
	}
	defer e.now.Add(-1)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = io.WriteString(conn, string(id))
	_, _ = io.Copy(io.Discard, conn) // to its end
	_ = conn.Close()
}

// asked makes a connection of a program in the guest, and returns what it hears.
func asked(t *testing.T, w *stubWorld) (net.Conn, string) {
	t.Helper()
	near, far := net.Pipe()
	w.calls <- far
	b := make([]byte, 100)
	n, err := near.Read(b)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return near, string(b[:n])
}

// A guest is answered after all that may happen to it, and no longer than its run.
func TestGuestAPIIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &echoAPI{}
		w, s := sleeper(t, func(w *stubWorld) { w.api, w.calls = api, make(chan net.Conn) })
		v, err := s.Get("web")
		try(t, err)
		for _, happens := range []func(){
			func() {},
			func() { try(t, s.Pause(t.Context(), "web")); try(t, s.Resume(t.Context(), "web")) },
			func() { try(t, s.Hibernate(t.Context(), "web")); try(t, s.Resume(t.Context(), "web")) },
			func() { try(t, s.Restart(t.Context(), "web")) },
			func() {
				closeSet(t, s, Keep)
				s = NewSet(w.world())
				try(t, s.Recover(t.Context()))
			},
		} {
			happens()
			if _, heard := asked(t, w); heard != string(v.ID) {
				t.Errorf("heard %q", heard)
			}
		}
		open, _ := asked(t, w)
		try(t, s.Stop(t.Context(), "web"))
		if _, err := open.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlives its run")
		}
		synctest.Wait()
		if n := api.now.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		closeSet(t, s, StopAll)
	})
}

// So many connections are served, and no more.
func TestGuestAPIConnsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &echoAPI{}
		w, s := sleeper(t, func(w *stubWorld) { w.api, w.calls = api, make(chan net.Conn) })
		for range apiConns {
			asked(t, w)
		}
		near, far := net.Pipe()
		select {
		case w.calls <- far:
			t.Error("one too many")
		case <-time.After(time.Hour):
			_, _ = near.Close(), far.Close()
		}
		if n := api.most.Load(); n != apiConns {
			t.Errorf("%d at once", n)
		}
		closeSet(t, s, StopAll)
	})
}

func TestGuestEnvironment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t, func(w *stubWorld) { w.api, w.calls = &echoAPI{}, make(chan net.Conn) })
		v, err := s.Get("web")
		try(t, err)
		for _, want := range []string{"AEGIS_INSTANCE_ID=" + string(v.ID), "AEGIS_GUEST_API=http://127.0.0.1:7777"} {
			if !slices.Contains(w.asked.Env, want) {
				t.Errorf("no %s in %v", want, w.asked.Env)
			}
		}
		closeSet(t, s, StopAll)
	})
}

func TestExposeByGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := sleeper(t)
		_, err := s.Expose(t.Context(), "web", Expose{Guest: 80})
		try(t, err)
		for _, c := range []struct {
			e    Expose
			kind fault.Kind
		}{
			{Expose{Guest: 80}, ""}, // as it is
			{Expose{Guest: 80, Protocol: TCP}, fault.Denied},
			{Expose{Guest: 81}, ""},
			{Expose{Guest: 81}, ""},
			{Expose{Guest: 81, Protocol: TCP}, ""},
			{Expose{Guest: 82}, fault.Denied},
		} {
			if _, err := s.ExposeByGuest(t.Context(), "web", c.e, 1); (err == nil) != (c.kind == "") || err != nil && fault.KindOf(err) != c.kind {
				t.Errorf("%+v: %v", c.e, err)
			}
		}
		for port, kind := range map[uint16]fault.Kind{80: fault.Denied, 83: fault.NotFound} {
			if err := s.UnexposeByGuest(t.Context(), "web", port); fault.KindOf(err) != kind {
				t.Errorf("close %d: %v", port, err)
			}
		}
		try(t, s.UnexposeByGuest(t.Context(), "web", 81))
		if _, err := s.ExposeByGuest(t.Context(), "web", Expose{Guest: 82}, 1); err != nil {
			t.Error(err)
		}
		closeSet(t, s, StopAll)
	})
}

// Whoever comes from the host is no program in the guest.
func TestGuestAPIIsNotReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		awake, err := s.Awake(t.Context(), "web", "a test")
		try(t, err)
		for port, kind := range map[uint16]fault.Kind{7778: "", 7777: fault.Unavailable} {
			w.nets.set(port, stubPort{loopback: true})
			c, err := awake.Dial(t.Context(), port)
			if (err == nil) != (kind == "") || err != nil && fault.KindOf(err) != kind {
				t.Errorf("dial %d: %v", port, err)
			}
			if err == nil {
				try(t, c.Close())
			}
		}
		awake.Release()
		closeSet(t, s, StopAll)
	})
}
