package router

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestRefusedBody has a client ask before it sends a body, and a guest that does not
// want it: the client must not be told to send it first.
func TestRefusedBody(t *testing.T) {
	f := serving(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) })
	conn, err := net.Dial("tcp", f.addr)
	must(t, err)
	defer conn.Close() //nolint:errcheck // a test's
	_ = conn.SetDeadline(time.Now().Add(limit))
	_, err = io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	must(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // conn is closed
	must(t, err)
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %s", res.Status)
	}
}
