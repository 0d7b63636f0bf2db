package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/presence"
)

// serve answers each connection with what it is given, once the request is there. The
// answers to real requests are tested with the real server, in package httpapi.
func serve(t *testing.T, answer string) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := presence.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = io.WriteString(conn, answer)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return New(socket)
}

func TestNoDaemon(t *testing.T) {
	dead := filepath.Join(t.TempDir(), "dead")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	for name, socket := range map[string]string{
		"no socket": filepath.Join(t.TempDir(), "none"), "no folder": filepath.Join(t.TempDir(), "no", "s"),
		"left by a dead daemon": dead, "below a file": filepath.Join(dead, "s"),
	} {
		t.Run(name, func(t *testing.T) {
			c := New(socket)
			_, statusErr := c.Status(t.Context())
			_, runErr := c.Run(t.Context(), api.RunRequest{})
			for _, err := range []error{statusErr, runErr} {
				if !errors.Is(err, ErrNotRunning) || fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.HintOf(err), "aegis up") {
					t.Errorf("err = %v, hint %q", err, fault.HintOf(err))
				}
			}
		})
	}
}

func TestBadAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		kind   fault.Kind
		msg    string
	}{
		"none":         {"", fault.Unavailable, "ended"},
		"cut off":      {"HTTP/1.1 200 OK\r\n", fault.Unavailable, "ended"},
		"not JSON":     {"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nwhat", fault.Internal, `aegisd answered 500 Oops: "what"`},
		"no message":   {"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n{}", fault.Internal, "aegisd answered 400"},
		"unknown code": {"HTTP/1.1 418 Tea\r\nContent-Length: 27\r\n\r\n{\"error\":\"x\",\"code\":\"new\"} ", fault.Internal, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := serve(t, c.answer)
			_, statusErr := cl.Status(t.Context())
			_, runErr := cl.Run(t.Context(), api.RunRequest{})
			for _, err := range []error{statusErr, runErr} {
				if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.msg) || strings.Contains(err.Error(), "http://") {
					t.Errorf("err = %v (%s), want %s: %s", err, fault.KindOf(err), c.kind, c.msg)
				}
			}
		})
	}
}

// TestOtherProtocol meets a daemon that upgrades to something else.
func TestOtherProtocol(t *testing.T) {
	c := serve(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if _, err := c.Run(t.Context(), api.RunRequest{}); err == nil || !strings.Contains(err.Error(), `"websocket"`) {
		t.Errorf("err = %v", err)
	}
}

const upgraded = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.AttachProtocol + "\r\n\r\n"

// TestStreamEndsWithoutStatus loses the daemon at every byte of what it sends.
func TestStreamEndsWithoutStatus(t *testing.T) {
	frames := frame.Append(frame.Append(nil, frame.Stdout, []byte("hi")), frame.Exit, frame.EncodeStatus(3))
	for n := range len(frames) + 1 {
		a, err := serve(t, upgraded+string(frames[:n])).Run(t.Context(), api.RunRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		status, err := a.Stream(t.Context(), Streams{Stdout: &out})
		if n == len(frames) {
			if status != 3 || err != nil || out.String() != "hi" {
				t.Errorf("status %d, %v, %q", status, err, out.String())
			}
			continue
		}
		if fault.KindOf(err) != fault.Unavailable || fault.HintOf(err) == "" {
			t.Errorf("after %d bytes: %v (%s)", n, err, fault.KindOf(err))
		}
	}
}

// TestLinesCutOff loses the daemon in the middle of a log: it has answered, and did not
// end the log.
func TestLinesCutOff(t *testing.T) {
	c := serve(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{\"line\":\"a\"}\n\r\n")
	n := 0
	for line, err := range c.Logs(t.Context(), "web", LogQuery{Tail: -1, Follow: true}) {
		n++
		switch {
		case n == 1 && (err != nil || line.Line != "a"):
			t.Errorf("first: %+v, %v", line, err)
		case n == 2 && (fault.KindOf(err) != fault.Unavailable || errors.Is(err, ErrEnded) || strings.Contains(err.Error(), "EOF") || fault.HintOf(err) == ""):
			t.Errorf("second: %v", err)
		}
	}
	if n != 2 {
		t.Errorf("%d lines", n)
	}
}

// TestNotText passes bytes that JSON would make others of.
func TestNotText(t *testing.T) {
	c := serve(t, upgraded)
	bad := "a\xff"
	_, run := c.Run(t.Context(), api.RunRequest{Command: []string{"printf", bad}})
	_, key := c.Run(t.Context(), api.RunRequest{Command: []string{"env"}, Env: map[string]string{bad: ""}})
	_, _, create := c.Create(t.Context(), api.CreateRequest{Command: []string{"env"}, Env: map[string]string{"A": bad}})
	_, exec := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"true"}, Workdir: bad})
	for _, err := range []error{run, key, create, exec} {
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), `"a\xff" is not UTF-8`) || fault.HintOf(err) == "" {
			t.Errorf("%v", err)
		}
	}
	if _, err := c.Run(t.Context(), api.RunRequest{Command: []string{"echo", "grüße"}, TTY: &api.Winsize{}}); err != nil {
		t.Error(err)
	}
}

func TestCanceledBeforeTheCall(t *testing.T) {
	gone := errors.New("had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	c := serve(t, upgraded)
	_, statusErr := c.Status(ctx)
	_, runErr := c.Run(ctx, api.RunRequest{})
	if !errors.Is(statusErr, gone) || !errors.Is(runErr, gone) {
		t.Errorf("%v, %v; want the cause", statusErr, runErr)
	}
}
