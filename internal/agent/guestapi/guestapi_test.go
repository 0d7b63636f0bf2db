package guestapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	c := New(s.URL + "/")
	t.Cleanup(func() {
		c.CloseIdle()
		s.Close()
	})
	return c
}

// TestSendTriesUntilItIsHeard: broken connections and a host in trouble are tried again
// with the same frame; a refusal is final.
func TestSendTriesUntilItIsHeard(t *testing.T) {
	var n atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var f api.Frame
		if json.NewDecoder(r.Body).Decode(&f) != nil || f.MsgID != "m1" {
			t.Errorf("sent %+v", f)
		}
		switch n.Add(1) {
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	if err := c.Send(t.Context(), api.Frame{MsgID: "m1"}); err != nil || n.Load() != 3 {
		t.Errorf("%v after %d attempts", err, n.Load())
	}
	refused := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"error":{"message":"not you","code":"denied"}}`))
	})
	err := refused.Send(t.Context(), api.Frame{MsgID: "m1"})
	if fault.KindOf(err) != fault.Denied || err.Error() != "the host answers 403: not you" {
		t.Errorf("%v", err)
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		cancel(enough)
		w.WriteHeader(http.StatusInternalServerError)
	})
	if err := c.Send(ctx, api.Frame{MsgID: "m1"}); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

// TestHoldGivesBack: the lease is asked for until it is had, and given back at the end.
func TestHoldGivesBack(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var asked, given atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			given.Add(1)
			return
		}
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		cancel()
	})
	c.Hold(ctx, "test")
	if asked.Load() != 2 || given.Load() != 1 {
		t.Errorf("asked %d times, given back %d times", asked.Load(), given.Load())
	}
}
