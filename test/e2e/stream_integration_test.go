//go:build integration

package e2e

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// silent serves two who are in no hurry. On port 80 it sends a Server-Sent Event, is
// silent, and sends another one; on port 81 it reads to the end of what it is told, is
// silent, and answers with how much that was.
const silent = `
import socket, sys, threading, time
def serve(port, handle):
    s = socket.create_server(('', port))
    def loop():
        while True:
            c, _ = s.accept()
            threading.Thread(target=handle, args=(c,)).start()
    threading.Thread(target=loop).start()
def events(c):
    while b'\r\n\r\n' not in c.recv(4096): pass
    c.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n' + b'data: first\n\n')
    time.sleep(float(sys.argv[1])); c.sendall(b'data: last\n\n'); c.close()
def count(c):
    n = 0
    while b := c.recv(65536): n += len(b)
    time.sleep(float(sys.argv[1])); c.sendall(b'%d' % n); c.close()
serve(80, events); serve(81, count)
`

// TestSilentStreams: an instance that would be paused after a second of idleness is
// awake for as long as somebody waits for its answer, and sleeps afterwards.
func TestSilentStreams(t *testing.T) {
	h := newHost(t)
	pauseAfter := int64(1)
	made, _, err := h.client().Launch(t.Context(), api.CreateRequest{
		Handle: "slow", Command: []string{"python3", "-c", silent, strconv.Itoa(stress(5, 200))}, PauseAfterS: &pauseAfter,
		Expose: []api.ExposeRequest{{Port: 80}, {Port: 81}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dial := func(i int) *net.TCPConn {
		addr := strings.TrimPrefix(made.Endpoints[i].URL(), "http://")
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
	counted := make(chan string, 1)
	go func() {
		c := dial(1)
		defer c.Close() //nolint:errcheck // the answer has been read
		_, _ = io.WriteString(c, strings.Repeat("x", 100_000))
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		counted <- string(b)
	}()
	c := dial(0)
	if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: slow\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for in := bufio.NewScanner(c); in.Scan(); {
		if line, ok := strings.CutPrefix(in.Text(), "data: "); ok {
			lines = append(lines, line)
			if state := h.info("slow").State; state != "running" {
				t.Errorf("it is %s while somebody listens", state)
			}
		}
	}
	_ = c.Close() // it has been read to its end
	if got := strings.Join(lines, " "); got != "first last" {
		t.Errorf("events: %q", got)
	}
	if got := <-counted; got != "100000" {
		t.Errorf("one who has said all is answered %q", got)
	}
	for deadline := time.Now().Add(patience); h.info("slow").State != "paused"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not sleep: %+v", h.info("slow"))
		}
	}
	if log := h.log(); strings.Count(log, "to=paused") > 1 {
		t.Errorf("it was paused in the middle:\n%s", log)
	}
	h.ok("instance", "delete", "slow")
}
