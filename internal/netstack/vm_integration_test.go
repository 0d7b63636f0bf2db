//go:build integration

package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server answers in the guest: 80 echoes, 81 swallows, 82 sends 64 MB.
const server = `
import socket, threading
def serve(port, handle):
    s = socket.create_server(("", port), backlog=128)
    def loop():
        while True:
            c, _ = s.accept()
            threading.Thread(target=handle, args=(c,), daemon=True).start()
    threading.Thread(target=loop).start()
def echo(c):
    while b := c.recv(65536): c.sendall(b)
    c.close()
def swallow(c):
    n = 0
    while b := c.recv(1 << 20): n += len(b)
    c.sendall(str(n).encode()); c.close()
def spout(c):
    b = bytes(1 << 20)
    for _ in range(64): c.sendall(b)
    c.close()
serve(80, echo); serve(81, swallow); serve(82, spout)
print("ready")
`

func TestVM(t *testing.T) {
	v := startVM(t)
	a := v.spawn(t, server)
	if f, err := a.Recv(); err != nil || !strings.HasPrefix(string(f.Payload), "ready") {
		t.Fatalf("%q, %v", f.Payload, err)
	}
	t.Run("inbound", v.inbound)
	t.Run("outbound", v.outbound)
	t.Run("denied", v.refused)
	t.Run("names", v.names)
	t.Run("paused", v.paused)
	t.Run("attached again", v.attachedAgain)
	t.Run("speed", v.speed)
}

func (v *vm) inbound(t *testing.T) {
	var took []time.Duration
	for range 50 {
		begun := time.Now()
		c, err := v.Dial(soon(t), 80)
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begun))
		if err := talk(c, "hello"); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	t.Logf("first dial %v, median %v", took[0], median(took))
	if _, err := v.Dial(soon(t), 83); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port on which nothing listens: %v", err)
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

func (v *vm) outbound(t *testing.T) {
	v.world.serve(t, "93.184.216.34:80", echo)
	l, err := v.Listen(2049)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	defer func() { _ = l.Close() }()
	got := v.python(t, `
import socket
for to in ("93.184.216.34", 80), ("example.com", 80), ("192.168.127.1", 2049):
    c = socket.create_connection(to, timeout=10)
    c.sendall(b"hello"); c.shutdown(socket.SHUT_WR)
    print(c.recv(100), c.recv(1))
`)
	if want := strings.Repeat("b'hello' b''\n", 3); got != want {
		t.Errorf("%q", got)
	}
}

func (v *vm) refused(t *testing.T) {
	got := v.python(t, `
import socket, time
for host in "10.0.0.1", "172.17.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "198.18.0.1", "192.168.127.3", "192.168.127.1", "93.184.216.34":
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        s = socket.socket(socket.AF_INET, kind); s.settimeout(5)
        begun = time.monotonic()
        try:
            s.connect((host, 9))
            s.send(b"x"); s.recv(1)
            print(host, kind, "answers")
        except ConnectionRefusedError:
            took = time.monotonic() - begun
            if took > 1: print(host, kind, "after", took)
        except OSError as e: print(host, kind, e)
`)
	if got != "" {
		t.Errorf("%s", got)
	}
}

func (v *vm) names(t *testing.T) {
	got := v.python(t, `
import socket
for name in "example.com", "nowhere.example", "evil.example":
    try: print([a[4][0] for a in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)])
    except socket.gaierror as e: print(e.errno in (socket.EAI_NONAME, socket.EAI_NODATA))
`)
	if want := "['93.184.216.34']\nTrue\nTrue\n"; got != want {
		t.Errorf("%q", got)
	}
}

func (v *vm) paused(t *testing.T) {
	if err := v.machine.Pause(soon(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := v.Dial(ctx, 80); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial a paused guest: %v", err)
	}
	t.Logf("gave up after %v", time.Since(begun))
	answered := make(chan error, 1)
	go func() {
		c, err := v.Dial(soon(t), 80)
		if err == nil {
			err = talk(c, "hello")
			_ = c.Close()
		}
		answered <- err
	}()
	time.Sleep(20 * time.Millisecond)
	begun = time.Now()
	if err := v.machine.Resume(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	t.Logf("answered %v after Resume was called", time.Since(begun))
}

func (v *vm) attachedAgain(t *testing.T) {
	c, err := v.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range 3 {
		v.Detach()
		v.attach(t)
		begun := time.Now()
		other, err := v.Dial(soon(t), 80)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("first dial after Attach: %v", time.Since(begun))
		_ = other.Close()
		if err := talk(c, "still here"); err != nil {
			t.Errorf("a connection from before: %v", err)
		}
	}
}

func (v *vm) speed(t *testing.T) {
	const total = 64 << 20
	rate := func(what string, begun time.Time) {
		t.Logf("%s: %.0f MB/s", what, total/time.Since(begun).Seconds()/1e6)
	}
	c, err := v.Dial(soon(t), 81)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for range total >> 20 {
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "67108864" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	rate("into the guest", begun)
	_ = c.Close()
	if c, err = v.Dial(soon(t), 82); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	if n, err := io.Copy(io.Discard, c); n != total || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	rate("out of the guest", begun)
	_ = c.Close()
	if c, err = v.Dial(soon(t), 80); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for range 200 {
		begun := time.Now()
		if err := talk(c, strings.Repeat("x", 64)); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	t.Logf("round trip: %v", median(took))
	_ = c.Close()
	v.world.serve(t, "93.184.216.34:81", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	t.Logf("guest dials out, median of 50: %s ms", v.python(t, `
import socket, time
took = []
for _ in range(50):
    begun = time.monotonic(); c = socket.create_connection(("93.184.216.34", 81)); took.append(time.monotonic() - begun); c.close()
print(round(sorted(took)[25] * 1000, 2), end="")
`))
}
