package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/fault"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}` + "\n"

// serveQMP is a QEMU that answers with what answer returns; "" is no answer.
func serveQMP(t *testing.T, answer func(command string, id uint64) string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		defer func() { _ = theirs.Close() }()
		_, _ = theirs.Write([]byte(greeting))
		for lines := bufio.NewScanner(theirs); lines.Scan(); {
			var c struct {
				Execute   string
				ID        uint64
				Arguments struct{ Say string }
			}
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				t.Errorf("command %q: %v", lines.Bytes(), err)
				return
			}
			reply := answer(c.Execute, c.ID)
			if c.Execute == "qmp_capabilities" {
				reply = fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID)
			}
			if c.Execute == "echo" {
				reply = fmt.Sprintf(`{"return": {"status": %q}, "id": %d}`, c.Arguments.Say, c.ID)
			}
			if reply == "close" {
				return
			}
			if reply != "" {
				_, _ = theirs.Write([]byte(reply + "\n"))
			}
		}
	})
	t.Cleanup(func() {
		_ = ours.Close()
		serving.Wait()
	})
	return ours
}

func openQMP(t *testing.T, answer func(command string, id uint64) string) *qmp {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	q, err := newQMP(t.Context(), serveQMP(t, answer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

func TestQMP(t *testing.T) {
	q := openQMP(t, func(command string, id uint64) string {
		switch command {
		case "query-status":
			return `{"event": "STOP", "timestamp": {}}` + "\n" + fmt.Sprintf(`{"return": {"status": "paused", "running": false}, "id": %d}`, id)
		case "stop":
			return fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "no such thing"}, "id": %d}`, id)
		case "quit":
			return `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}` + "\n" + `{"event": "SHUTDOWN", "data": {"reason": "later"}}`
		}
		return ""
	})
	var s struct{ Status string }
	if err := q.execute(t.Context(), "query-status", nil, &s); err != nil || s.Status != "paused" {
		t.Errorf("query-status: %q, %v", s.Status, err)
	}
	if err := q.execute(t.Context(), "stop", nil, nil); err == nil || !strings.Contains(err.Error(), "stop: no such thing") {
		t.Errorf("stop: %v", err)
	}
	if err := q.execute(t.Context(), "echo", map[string]string{"say": "hello"}, &s); err != nil || s.Status != "hello" {
		t.Errorf("a command with arguments: %q, %v", s.Status, err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
	defer cancel()
	if err := q.execute(ctx, "quit", nil, nil); !errors.Is(err, cause) {
		t.Errorf("a command without an answer: %v", err)
	}
	if q.Shutdown() != "guest-reset" {
		t.Errorf("Shutdown = %q", q.Shutdown())
	}
}

func TestQMPEnds(t *testing.T) {
	q := openQMP(t, func(string, uint64) string { return "close" })
	for range 2 {
		if err := q.execute(t.Context(), "query-status", nil, nil); !dying(err) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a command while QEMU ends: %v", err)
		}
	}
	<-q.done
}

func TestQMPGarbage(t *testing.T) {
	for name, garbage := range map[string]string{
		"not JSON":   "}{",
		"wrong type": `{"event": 7}`,
		"endless":    strings.Repeat("x", maxQMPLine+2),
	} {
		t.Run(name, func(t *testing.T) {
			q := openQMP(t, func(string, uint64) string { return garbage })
			if err := q.execute(t.Context(), "query-status", nil, nil); err == nil {
				t.Error("garbage is an answer")
			}
		})
	}
}

func TestQMPGreeting(t *testing.T) {
	for name, text := range map[string]string{"other": `{"hello": 1}` + "\n", "garbage": "SSH-2.0\n", "nothing": ""} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Write([]byte(text))
			_ = theirs.Close()
		}()
		if _, err := newQMP(t.Context(), ours); err == nil {
			t.Errorf("%s is a greeting", name)
		}
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
	defer cancel()
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	if _, err := newQMP(ctx, ours); !errors.Is(err, cause) {
		t.Errorf("a QEMU that says nothing: %v", err)
	}
}

// FuzzQMP feeds a connection with what a hostile QEMU could send.
func FuzzQMP(f *testing.F) {
	f.Add(`{"return": {}, "id": 2}`)
	f.Add(`{"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}`)
	f.Add(`{"id": 18446744073709551616}`)
	f.Add("{\n}\n[]\n")
	f.Fuzz(func(t *testing.T, text string) {
		ours, theirs := net.Pipe()
		var serving sync.WaitGroup
		serving.Go(func() {
			_, _ = theirs.Write([]byte(greeting + `{"return": {}, "id": 1}` + "\n" + text))
			_ = theirs.Close()
		})
		go func() { // takes what is sent
			_, _ = bufio.NewReader(theirs).WriteTo(discard{})
		}()
		if q, err := newQMP(t.Context(), ours); err == nil {
			<-q.done
			q.Close()
		}
		serving.Wait()
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestTrouble(t *testing.T) {
	for event, want := range map[string]fault.Kind{
		`{"event": "BLOCK_IO_ERROR", "data": {"device": "", "nospace": true, "reason": "No space left on device", "action": "report"}}`: fault.Exhausted,
		`{"event": "BLOCK_IO_ERROR", "data": {"device": "", "nospace": false, "reason": "Input/output error", "action": "report"}}`:     fault.Unavailable,
		`{"event": "BLOCK_IO_ERROR", "data": {"device": "", "reason": "No space left on device", "action": "report"}}`:                  fault.Exhausted,
		`{"event": "RESUME"}`: "",
	} {
		q, m := &qmp{suffered: make(chan struct{})}, qmpMessage{}
		if err := json.Unmarshal([]byte(event), &m); err != nil {
			t.Fatal(err)
		}
		q.take(&m)
		q.take(&m) // a full disk tells of it again and again
		err := q.Trouble()
		select {
		case <-q.suffered:
			if want == "" {
				t.Errorf("%s counts as trouble", event)
			}
		default:
			if want != "" {
				t.Errorf("%s is not told", event)
			}
		}
		if want == "" && err != nil || want != "" && (fault.KindOf(err) != want || fault.BlameOf(err) != fault.Host || fault.HintOf(err) == "") {
			t.Errorf("%s: %v", event, err)
		}
	}
}
