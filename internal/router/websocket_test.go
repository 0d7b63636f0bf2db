package router

import (
	"bytes"
	"context"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/xfeldman/aegisvm/internal/instance"
)

// wsEcho answers WebSocket messages with themselves until the client ends it.
func wsEcho(t *testing.T, ended chan<- error) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			ended <- err
			return
		}
		defer c.CloseNow() //nolint:errcheck // it has ended
		c.SetReadLimit(2 << 20)
		for {
			kind, msg, err := c.Read(r.Context())
			if err == nil {
				err = c.Write(r.Context(), kind, msg)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}
}

// talk sends messages of up to 1 MB and gets them back.
func talk(t *testing.T, c *websocket.Conn) {
	t.Helper()
	c.SetReadLimit(2 << 20)
	for _, n := range []int{0, 1, 126, 65536, 1 << 20, 1 << 20, 1 << 20} {
		said := noise(n)
		must(t, c.Write(t.Context(), websocket.MessageBinary, said))
		_, got, err := c.Read(t.Context())
		if err != nil || !bytes.Equal(got, said) {
			t.Errorf("%d bytes of %d, %v", len(got), n, err)
		}
	}
}

func TestWebSocketFront(t *testing.T) {
	ended := make(chan error, 1)
	f := serving(t, wsEcho(t, ended))
	c, res, err := websocket.Dial(t.Context(), "ws://web.localhost/chat", &websocket.DialOptions{HTTPClient: f.http, Subprotocols: []string{"chat"}}) //nolint:bodyclose // the library has it
	must(t, err)
	if c.Subprotocol() != "chat" || res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("%s, %q", res.Status, c.Subprotocol())
	}
	talk(t, c)
	if n := f.stub.held.Load(); n != 1 {
		t.Errorf("%d holds", n)
	}
	must(t, c.Close(websocket.StatusNormalClosure, "bye"))
	if err := wait(t, ended); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("guest: %v", err)
	}
	if n := f.settle(t); n != 1 {
		t.Errorf("released %d times", n)
	}
	_, _, err = websocket.Dial(t.Context(), "ws://web.localhost/", &websocket.DialOptions{HTTPClient: f.http, HTTPHeader: http.Header{"Origin": {"https://evil.com"}}}) //nolint:bodyclose // the library has it
	if err == nil {
		t.Error("a page of another site has a WebSocket")
	}
}

// TestWebSocketCut closes the router, and breaks a client off: neither leaves a hold.
func TestWebSocketCut(t *testing.T) {
	for name, cut := range map[string]func(*front, *websocket.Conn) error{
		"router": func(f *front, _ *websocket.Conn) error { return f.Close() },
		"client": func(_ *front, c *websocket.Conn) error { return c.CloseNow() },
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			f := serving(t, wsEcho(t, ended))
			c, _, err := websocket.Dial(t.Context(), "ws://web.localhost/", &websocket.DialOptions{HTTPClient: f.http}) //nolint:bodyclose // the library has it
			must(t, err)
			defer c.CloseNow() //nolint:errcheck // a test's
			must(t, cut(f, c))
			if err := wait(t, ended); err == nil {
				t.Error("the guest has a client")
			}
			if n := f.settle(t); n != 1 {
				t.Errorf("released %d times", n)
			}
		})
	}
}

func TestWebSocketDoor(t *testing.T) {
	ended := make(chan error, 1)
	d := open(t, Doors{}, to(site(t, wsEcho(t, ended))))
	c, _, err := websocket.Dial(t.Context(), "ws://"+d.ln.Addr().String(), nil) //nolint:bodyclose // the library has it
	must(t, err)
	talk(t, c)
	must(t, c.Close(websocket.StatusNormalClosure, "bye"))
	if err := wait(t, ended); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("guest: %v", err)
	}
}

// TestHTTP2Door speaks HTTP/2 with prior knowledge through a door.
func TestHTTP2Door(t *testing.T) {
	s := newSleeper(site(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Proto)) }))
	d := open(t, Doors{}, func(ctx context.Context) (instance.GuestConn, error) { return s.connect(ctx) })
	f := &front{addr: d.ln.Addr().String()}
	c := f.client(true)
	defer c.CloseIdleConnections()
	go func() {
		<-s.called // the client has spoken by now, or will
		close(s.wake)
	}()
	res, err := c.Get("http://x/")
	must(t, err)
	defer res.Body.Close() //nolint:errcheck // a test's
	got := make([]byte, 8)
	if n, _ := res.Body.Read(got); string(got[:n]) != "HTTP/2.0" {
		t.Errorf("%q", got[:n])
	}
}
