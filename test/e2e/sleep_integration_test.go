//go:build integration

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// teller is a server that counts for itself, and answers with what it has in memory and
// the time.
const teller = `
import http.server, itertools, threading, time
count = 0
def tick():
    global count
    for count in itertools.count(): time.sleep(.05)
threading.Thread(target=tick, daemon=True).start()
born = str(time.monotonic_ns())
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f'{born} {count} {time.time()}'.encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('', 80), H).serve_forever()
`

// told is one answer of a teller.
type told struct {
	born  string // tells one run of the program from another
	count int
	late  time.Duration // of its clock, behind this one
}

func (h *host) ask(url string) told {
	h.t.Helper()
	begin := time.Now()
	status, body := h.get(url)
	if status != http.StatusOK {
		h.t.Fatalf("%s: status %d, %q", url, status, body)
	}
	end := time.Now()
	fields := strings.Fields(string(body))
	count, err1 := strconv.Atoi(fields[1])
	seconds, err2 := strconv.ParseFloat(fields[2], 64)
	if err1 != nil || err2 != nil {
		h.t.Fatalf("%q", body)
	}
	// It read its clock at some moment in between.
	at := time.Unix(0, int64(seconds*1e9))
	late := time.Duration(0)
	switch {
	case at.Before(begin):
		late = begin.Sub(at)
	case at.After(end):
		late = end.Sub(at)
	}
	return told{fields[0], count, late}
}

// get asks once, on a connection of its own that the calling goroutine makes: it may be
// in a network of its own.
func (h *host) get(url string) (status int, body []byte) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Close = true
	conn, err := net.DialTimeout("tcp", req.URL.Host, time.Minute)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the answer has been read
	err = errors.Join(conn.SetDeadline(time.Now().Add(time.Minute)), req.Write(conn))
	if err != nil {
		h.t.Fatalf("%s: %v", url, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		h.t.Fatalf("%s: %v", url, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if body, err = io.ReadAll(resp.Body); err != nil {
		h.t.Fatalf("%s: %v", url, err)
	}
	return resp.StatusCode, body
}

// teller makes an instance that runs a teller, and returns the URL of its port.
func (h *host) teller(name string) string {
	h.t.Helper()
	never := int64(0)
	made, _, err := h.client().Launch(h.t.Context(), api.CreateRequest{
		Handle: name, Command: []string{"python3", "-uc", teller}, PauseAfterS: &never, Expose: []api.ExposeRequest{{Port: 80}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return made.Endpoints[0].URL()
}

// TestHibernate: a program with a counter in its memory, an open file and a command
// under way is saved again and again, and never notices.
func TestHibernate(t *testing.T) {
	h := newHost(t)
	cycles := stress(10, 100)
	url := h.teller("web")
	first := h.ask(url)
	x, err := h.client().Exec(t.Context(), "web", api.ExecRequest{Command: []string{"sh", "-c", "exec 3>/root/file 4>/workspace/file; while read line; do echo got $line; echo $line >&3; echo $line >&4; done"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	stdin, tell := io.Pipe()
	out, hear := io.Pipe()
	defer hear.Close() //nolint:errcheck // a pipe in memory
	ended := make(chan error, 1)
	go func() {
		_, err := x.Stream(context.WithoutCancel(t.Context()), client.Streams{Stdin: stdin, Stdout: hear, Stderr: io.Discard})
		ended <- err
	}()
	lines := readLines(out)
	last := first.count
	var settled footprint
	for i := range cycles {
		if _, err := fmt.Fprintln(tell, i); err != nil {
			t.Fatal(err)
		}
		h.ok("instance", "stop", "--hibernate", "web")
		if vmms := h.machines(); len(vmms) != 0 {
			t.Fatalf("VMMs while it sleeps: %v", vmms)
		}
		if info := h.info("web"); !info.Hibernated || info.State != api.StateStopped {
			t.Fatalf("it is %s, hibernated %v", info.State, info.Hibernated)
		}
		got := h.ask(url)
		if got.born != first.born || got.count < last {
			t.Fatalf("cycle %d: %+v after %+v, count %d", i, got, first, last)
		}
		if got.late.Abs() > 100*time.Millisecond {
			t.Errorf("cycle %d: the clock is late by %v", i, got.late)
		}
		last = got.count
		select {
		case line := <-lines:
			if line != fmt.Sprintf("got %d", i) {
				t.Fatalf("the command under way says %q", line)
			}
		case <-time.After(time.Minute):
			t.Fatal("the command under way is silent")
		}
		switch f := h.footprint(); {
		case i == 1: // it owns its memory now
			settled = f
		case i > 1 && f.instances == settled.instances && (f.processes > settled.processes || f.files > settled.files+2): // some close late
			t.Errorf("cycle %d: footprint %+v, before %+v", i, f, settled)
		}
	}
	for _, file := range []string{"/root/file", "/workspace/file"} {
		if got := h.ok("exec", "web", "--", "cat", file); strings.Count(got, "\n") != cycles {
			t.Errorf("%s, which was open, has %q", file, got)
		}
	}
	if got := load(t, h.only("data/instances/*/workspace/file")); bytes.Count(got, []byte("\n")) != cycles {
		t.Errorf("the host's end of the open file has %q", got)
	}

	_ = tell.Close()
	if err := <-ended; err != nil {
		t.Errorf("the command under way ended with %v", err)
	}

	// A daemon that ends with its instances asleep, and the next one.
	h.ok("down")
	h.up()
	if got := h.ask(url); got.born != first.born || got.count < last {
		t.Errorf("after down and up: %+v", got)
	}
	// What is stopped has forgotten.
	h.ok("instance", "stop", "web")
	if got := h.ask(url); got.born == first.born {
		t.Error("a program that was stopped is still the same")
	}
	h.ok("instance", "delete", "web")
}

// readLines passes on lines.
func readLines(r io.Reader) <-chan string {
	lines := make(chan string, 1024)
	go func() { // ends with r
		defer close(lines)
		for in := bufio.NewScanner(r); in.Scan(); {
			lines <- in.Text()
		}
	}()
	return lines
}

// TestClones: clones of one template have nothing in common that would tell them apart
// from machines of their own, and the template stays as it is.
func TestClones(t *testing.T) {
	h := newHost(t)
	clones := stress(4, 64)
	h.works() // makes the template
	h.templateKept()
	before := h.digests()
	// Each writes to memory that it has from the template, and frees it.
	script := "python3 -c 'x = bytearray(b\"x\") * (60 << 20); del x'; cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1; python3 -c 'import uuid; print(uuid.uuid4())'; hostname"
	seen := map[string]bool{}
	for range clones {
		for line := range strings.SplitSeq(strings.TrimSpace(h.ok("run", "--", "sh", "-c", script)), "\n") {
			if seen[line] {
				t.Errorf("%q comes twice", line)
			}
			seen[line] = true
		}
	}
	if want := 6 * clones; len(seen) != want {
		t.Errorf("%d values, want %d", len(seen), want)
	}
	// One with a larger disk is a clone of the same template.
	if size := strings.TrimSpace(h.ok("run", "--disk", "20G", "--", "df", "-BG", "--output=size", "/")); !strings.HasSuffix(size, "20G") {
		t.Errorf("a disk of 20 GB is, to df, %q", size)
	}
	if env := h.run("env"); strings.Contains(env, "GODEBUG") {
		t.Errorf("a program has the environment of PID 1:\n%s", env)
	}
	whole := load(t, filepath.Join(h.home, "data", "aegisd.log"))
	if made := bytes.Count(whole, []byte("msg=template")); made != 1 {
		t.Errorf("%d templates were made", made)
	}
	if after := h.digests(); !maps.Equal(before, after) {
		t.Errorf("the template has changed: %v, before %v", after, before)
	}
}

// TestPorts: the first connection after a start, a pause, a stop, a hibernation and a
// new daemon is answered, and so are many at once, with one start.
func TestPorts(t *testing.T) {
	h := newHost(t)
	url := h.teller("web")
	for _, sleep := range [][]string{nil, {"instance", "pause", "web"}, {"instance", "stop", "web"}, {"instance", "stop", "--hibernate", "web"}} {
		if sleep != nil {
			h.ok(sleep...)
		}
		h.ask(url)
	}
	h.signal(9)
	h.up()
	h.ask(url)
	h.ok("instance", "stop", "web")
	var wg sync.WaitGroup
	born := make([]string, 50)
	for i := range born {
		wg.Go(func() { born[i] = h.ask(url).born })
	}
	wg.Wait()
	if slices.Sort(born); born[0] != born[len(born)-1] {
		t.Errorf("50 clients met different runs: %v", slices.Compact(born))
	}
	port := strings.TrimPrefix(url, "http://")
	h.ok("instance", "disable", "web")
	if conn, err := net.DialTimeout("tcp", port, time.Second); err == nil {
		_ = conn.Close()
		t.Error("the port of a disabled instance is open")
	}
	h.ok("instance", "delete", "web")
}

// TestEgress: what a guest may not reach is refused at once, and the log says how to
// allow it.
func TestEgress(t *testing.T) {
	h := newHost(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // of no use any more
	h.create("box", []string{"sleep", "100000"})
	_, port, _ := net.SplitHostPort(ln.Addr().String()) // of a listener
	for _, addr := range []string{"192.168.127.1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1", "224.0.0.1"} {
		script := fmt.Sprintf("import socket, time\nt = time.time()\ntry: socket.create_connection((%q, %s), 20); print('connected')\nexcept OSError as e: print('refused' if time.time() - t < 5 else 'late')", addr, port)
		if got := h.ok("exec", "box", "--", "python3", "-c", script); got != "refused\n" {
			t.Errorf("%s: %s", addr, got)
		}
	}
	if logs := h.ok("logs", "box"); !strings.Contains(logs, "egress denied") || !strings.Contains(logs, "--allow-host") {
		t.Errorf("the log does not say so:\n%s", logs)
	}
	h.ok("instance", "delete", "box")
}
