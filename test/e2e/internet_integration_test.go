//go:build integration

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// internet is a network namespace of the test's own in which every IPv4 address of the
// world answers: on port 80 over TCP with who was called, on port 7 over UDP with what
// was said, and on port 53 with the addresses of names.
type internet struct {
	t     *testing.T
	names map[string]string

	mu    sync.Mutex
	asked []string // names
}

// newInternet moves the calling goroutine, and what it starts, into such a namespace for
// good. own is an address that the host itself has there.
func newInternet(t *testing.T, own string, names map[string]string) *internet {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 9.9.9.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"link set lo up", "route add local 0.0.0.0/0 dev lo", "address add " + own + "/32 dev lo"} {
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
	w := &internet{t: t, names: names}
	w.listen()
	return w
}

// listen opens its services, which stay in the namespace whoever serves them.
func (w *internet) listen() {
	web, err := net.Listen("tcp4", ":80")
	if err != nil {
		w.t.Fatal(err)
	}
	dnsTCP, err := net.Listen("tcp4", ":53")
	if err != nil {
		w.t.Fatal(err)
	}
	// A datagram is answered from the address that it was sent to; only a socket of that
	// address does so without more ado.
	echo := w.packets("93.184.216.34:7")
	dns, other := w.packets("9.9.9.9:53"), w.packets("8.8.8.8:53")
	var wg sync.WaitGroup
	wg.Go(func() { accept(web, func(c net.Conn) { _, _ = fmt.Fprint(c, c.LocalAddr().(*net.TCPAddr).IP) }) })
	wg.Go(func() { accept(dnsTCP, func(c net.Conn) { _, _ = fmt.Fprint(c, "here is a name server") }) })
	wg.Go(func() { datagrams(echo, func(b []byte) []byte { return b }) })
	wg.Go(func() { datagrams(dns, w.answer) })
	wg.Go(func() { datagrams(other, w.answer) })
	w.t.Cleanup(func() {
		for _, c := range []io.Closer{web, dnsTCP, echo, dns, other} {
			_ = c.Close() // of no use any more
		}
		wg.Wait()
	})
}

func (w *internet) packets(addr string) net.PacketConn {
	c, err := net.ListenPacket("udp4", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func accept(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		handle(c)
		_ = c.Close() // the client sees what it got
	}
}

func datagrams(c net.PacketConn, answer func([]byte) []byte) {
	buf := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if b := answer(buf[:n]); b != nil {
			_, _ = c.WriteTo(b, from) // who lost it asks again
		}
	}
}

// answer is the world's name server.
func (w *internet) answer(b []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.TrimSuffix(q.Name.String(), ".")
	w.mu.Lock()
	w.asked = append(w.asked, name)
	w.mu.Unlock()
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	addr, ok := w.names[name]
	switch {
	case !ok:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()},
		}}
	}
	b, err := m.Pack()
	if err != nil {
		w.t.Error(err)
	}
	return b
}

// heard reports whether anybody asked for a name.
func (w *internet) heard(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.asked, name)
}

// caller tries addresses and names, one a line: "tcp HOST PORT" or "udp HOST PORT". It
// prints for each what it got, or how it failed, and says so when a refusal took long; on
// stderr, how long refusals took.
const caller = `
import socket, sys, time
refused = []
for line in sys.argv[1:]:
    kind, host, port = line.split()
    begun = time.monotonic()
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
        s.settimeout(20)
        s.connect((host, int(port)))
        if kind == 'udp': s.send(b'hello')
        got = s.recv(100).decode('ascii', 'replace')
    except ConnectionRefusedError: got = 'refused'
    except socket.gaierror: got = 'no such name'
    except OSError as e: got = str(e)
    took = time.monotonic() - begun
    if got == 'refused': refused.append(took * 1000)
    print(line, '->', got, '' if took < 5 else 'after %.1f s' % took)
refused.sort()
if refused: print('%d refusals, median %.1f ms, at most %.1f ms' % (len(refused), refused[len(refused) // 2], refused[-1]), file=sys.stderr)
`

// call runs caller in an instance, and compares what it says.
func (h *host) call(name string, want ...[2]string) {
	h.t.Helper()
	args := []string{"exec", name, "--", "python3", "-c", caller}
	var expected strings.Builder
	for _, w := range want {
		args = append(args, w[0])
		fmt.Fprintf(&expected, "%s -> %s \n", w[0], w[1])
	}
	r := h.try(args...)
	if r.status != 0 || r.stdout != expected.String() {
		h.t.Errorf("in %s: status %d\n%swant\n%s", name, r.status, r.stdout, &expected)
	}
	h.t.Logf("in %s: %s", name, strings.TrimSpace(r.stderr))
}

// TestInternet: what guests reach of a world in which every address answers.
func TestInternet(t *testing.T) {
	const own = "8.8.4.4" // a public address that is the host's
	world := newInternet(t, own, map[string]string{
		"example.test": "93.184.216.34", "api.example.test": "93.184.216.35", "other.test": "93.184.216.36",
		"rebind.example.test": "10.0.1.1", "host.example.test": own,
	})
	h := newHost(t)
	denied := []string{
		"10.0.0.1", "172.16.0.1", "192.168.1.1", "192.168.127.3", "100.64.0.1", "169.254.169.254", "192.0.0.1",
		"198.18.0.1", "0.0.0.1", "240.0.0.1", own,
	}
	var refused [][2]string
	for _, addr := range denied {
		refused = append(refused, [2]string{"tcp " + addr + " 80", "refused"})
	}
	h.create("public", []string{"sleep", "100000"})
	const nowhere = "[Errno 101] Network is unreachable" // says the guest's own kernel
	h.call("public", append(refused,
		[2]string{"tcp 224.0.0.1 80", nowhere},
		[2]string{"tcp 255.255.255.255 80", nowhere},
		[2]string{"tcp example.test 80", "93.184.216.34"},
		[2]string{"tcp 93.184.216.99 80", "93.184.216.99"},
		[2]string{"udp 93.184.216.34 7", "hello"},
		[2]string{"udp 10.0.0.1 7", "refused"},
		[2]string{"tcp rebind.example.test 80", "no such name"},
		[2]string{"tcp host.example.test 80", "no such name"},
		[2]string{"tcp nowhere.test 80", "no such name"},
	)...)
	if logs := h.ok("logs", "public"); !strings.Contains(logs, "egress denied") || !strings.Contains(logs, "--allow-host") {
		t.Errorf("the log does not say so:\n%s", logs)
	}

	h.ok("instance", "start", "--name", "listed", "--allow-host", "*.example.test", "--allow-host", "10.0.0.0/24:80", "--", "sleep", "100000")
	h.call("listed",
		[2]string{"tcp api.example.test 80", "93.184.216.35"},
		[2]string{"tcp 93.184.216.35 80", "93.184.216.35"}, // pinned to the name
		[2]string{"tcp 93.184.216.36 80", "refused"},
		[2]string{"tcp other.test 80", "no such name"},
		[2]string{"tcp rebind.example.test 80", "no such name"},
		[2]string{"tcp 10.0.0.1 80", "10.0.0.1"},
		[2]string{"tcp 10.0.0.1 53", "refused"},
		[2]string{"tcp 8.8.8.8 53", "refused"},
		[2]string{"udp 8.8.8.8 53", "refused"},
		[2]string{"tcp " + own + " 80", "refused"},
	)
	if world.heard("other.test") {
		t.Error("a name that is not on the list was passed on to the world")
	}

	h.ok("instance", "start", "--name", "all", "--egress", "all", "--", "sleep", "100000")
	h.call("all",
		[2]string{"tcp 10.0.0.1 80", "10.0.0.1"},
		[2]string{"tcp rebind.example.test 80", "10.0.1.1"},
		[2]string{"tcp " + own + " 80", own},
		[2]string{"tcp 169.254.169.254 80", "refused"},
	)
	h.ok("instance", "start", "--name", "none", "--egress", "none", "--", "sleep", "100000")
	h.call("none",
		[2]string{"tcp 93.184.216.34 80", "refused"},
		[2]string{"tcp example.test 80", "no such name"},
	)
	for _, name := range []string{"public", "listed", "all", "none"} {
		h.ok("instance", "delete", name)
	}
}
