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
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/api"
)

// internet is a network namespace of the test's own in which every address of the world
// answers: on port 80 over TCP with who was called, on port 9 with nothing, on port 19 without
// end, on port 7 over UDP with what was said, and on port 53 with the addresses of names.
type internet struct {
	t     *testing.T
	names map[string]string // with one address, or two: of IPv4 and of IPv6

	mu    sync.Mutex
	asked []string // names
}

// newInternet moves the calling goroutine, and what it starts, into such a namespace for
// good. own and own6 are addresses that the host itself has there.
func newInternet(t *testing.T, own, own6 string, names map[string]string) *internet {
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
	w := &internet{t: t, names: names}
	w.ip("link set lo up", "route add local 0.0.0.0/0 dev lo", "address add "+own+"/32 dev lo",
		"-6 route add local ::/0 dev lo", "address add "+own6+"/128 dev lo", "address add 2a02:b0b::1/64 dev lo")
	// A socket of an address that no card has, which for IPv4 the route allows.
	if err := os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.listen()
	return w
}

// ip changes the world.
func (w *internet) ip(commands ...string) {
	w.t.Helper()
	for _, args := range commands {
		if out, err := exec.CommandContext(w.t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			w.t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
}

// listen opens its services, which stay in the namespace whoever serves them.
func (w *internet) listen() {
	listen := func(port string) net.Listener {
		l, err := net.Listen("tcp", port) // of both families
		if err != nil {
			w.t.Fatal(err)
		}
		return l
	}
	web, dnsTCP, silence, chatter := listen(":80"), listen(":53"), listen(":9"), listen(":19")
	// A datagram is answered from the address that it was sent to; only a socket of that
	// address does so without more ado.
	echo := w.packets("93.184.216.34:7")
	dns, other, echo6 := w.packets("9.9.9.9:53"), w.packets("8.8.8.8:53"), w.packets("[2606:2800:21f::7]:7")
	var wg sync.WaitGroup
	wg.Go(func() { accept(web, func(c net.Conn) { _, _ = fmt.Fprint(c, c.LocalAddr().(*net.TCPAddr).IP) }) })
	wg.Go(func() { accept(dnsTCP, func(c net.Conn) { _, _ = fmt.Fprint(c, "here is a name server") }) })
	wg.Go(func() { accept(silence, func(c net.Conn) { wg.Go(func() { stay(c, 0) }) }) })
	wg.Go(func() { accept(chatter, func(c net.Conn) { wg.Go(func() { stay(c, 2<<10) }) }) })
	wg.Go(func() { datagrams(echo6, func(b []byte) []byte { return b }) })
	wg.Go(func() { datagrams(echo, func(b []byte) []byte { return b }) })
	wg.Go(func() { datagrams(dns, w.answer) })
	wg.Go(func() { datagrams(other, w.answer) })
	w.t.Cleanup(func() {
		for _, c := range []io.Closer{web, dnsTCP, silence, chatter, echo, echo6, dns, other} {
			_ = c.Close() // of no use any more
		}
		wg.Wait()
	})
}

func (w *internet) packets(addr string) net.PacketConn {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// accept has each connection handled, one after the other, and closed if handle has not taken
// it over.
func accept(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		handle(c)
		if port := c.LocalAddr().(*net.TCPAddr).Port; port != 9 && port != 19 {
			_ = c.Close() // the client sees what it got
		}
	}
}

// stay says so much to a client ten times a second, until the client ends the connection.
func stay(c net.Conn, size int) {
	defer c.Close() //nolint:errcheck // the client has ended it
	if size == 0 {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := c.Write(make([]byte, size)); err != nil {
			return
		}
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
	addrs, ok := w.names[name]
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	for text := range strings.FieldsSeq(addrs) {
		var body dnsmessage.ResourceBody
		switch addr := netip.MustParseAddr(text); {
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			body = &dnsmessage.AResource{A: addr.As4()}
		case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
			body = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		default:
			continue
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: body,
		})
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

// caller tries addresses and names, one a line: "tcp HOST PORT", "udp HOST PORT", both with a 6
// behind for IPv6, or "any HOST PORT" as most programs do, with what the name has. It
// prints for each what it got, or how it failed, and says so when a refusal took long; on
// stderr, how long refusals took.
const caller = `
import socket, sys, time
refused = []
for line in sys.argv[1:]:
    kind, host, port = line.split()
    begun = time.monotonic()
    try:
        if kind == 'any':
            s = socket.create_connection((host, int(port)), 20)
        else:
            family = socket.AF_INET6 if kind.endswith('6') else socket.AF_INET
            s = socket.socket(family, socket.SOCK_STREAM if kind.startswith('tcp') else socket.SOCK_DGRAM)
            s.settimeout(20)
            s.connect((host, int(port)))
        if kind.startswith('udp'): s.send(b'hello')
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
	const own, own6 = "8.8.4.4", "2a00:1450::1" // public addresses that are the host's
	world := newInternet(t, own, own6, map[string]string{
		"both.test": "93.184.216.40 2606:2800:21f::40", "six.test": "2606:2800:21f::6", "six.example.test": "2606:2800:21f::8",
		"rebind6.example.test": "fd00::1", "mapped.example.test": "::ffff:10.0.0.1", "host6.example.test": own6, "later.test": "2606:2800:21f::9 93.184.216.41",
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
	var refused6 [][2]string
	for _, addr := range []string{
		"fd00::1", "fc00::1", "64:ff9b::5db8:d822", "64:ff9b::a00:1", "2002:a00:1::1", "2001:db8::1", "fd61:6567:6973::7", "fd61:6567:6973::1",
		"2a02:b0b::99", own6,
	} {
		refused6 = append(refused6, [2]string{"tcp6 " + addr + " 80", "refused"})
	}
	h.call("public", append(refused6,
		[2]string{"tcp6 ::ffff:10.0.0.1 80", "refused"}, // the guest's own kernel makes IPv4 of it
		[2]string{"tcp6 2606:2800:21f::5 80", "2606:2800:21f::5"},
		[2]string{"udp6 2606:2800:21f::7 7", "hello"},
		[2]string{"udp6 fd00::1 7", "refused"},
		[2]string{"tcp6 six.test 80", "2606:2800:21f::6"},
		[2]string{"any six.test 80", "2606:2800:21f::6"},
		[2]string{"any both.test 80", "93.184.216.40"},
		[2]string{"tcp6 both.test 80", "2606:2800:21f::40"},
		[2]string{"tcp6 rebind6.example.test 80", "no such name"},
		[2]string{"tcp6 mapped.example.test 80", "no such name"},
		[2]string{"tcp6 host6.example.test 80", "no such name"},
	)...)
	testLiveEgress(t, h)
	testCounters(t, h)
	testDownload(t, h)
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
		[2]string{"tcp6 six.example.test 80", "2606:2800:21f::8"},
		[2]string{"tcp6 2606:2800:21f::8 80", "2606:2800:21f::8"},
		[2]string{"tcp6 2606:2800:21f::5 80", "refused"},
		[2]string{"tcp6 six.test 80", "no such name"},
		[2]string{"tcp6 rebind6.example.test 80", "no such name"},
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
		[2]string{"tcp6 fd00::1 80", "fd00::1"},
		[2]string{"tcp6 2a02:b0b::99 80", "2a02:b0b::99"},
	)
	h.ok("instance", "start", "--name", "none", "--egress", "none", "--", "sleep", "100000")
	h.call("none",
		[2]string{"tcp 93.184.216.34 80", "refused"},
		[2]string{"tcp example.test 80", "no such name"},
		[2]string{"tcp6 2606:2800:21f::5 80", "refused"},
	)
	// A host without a way for IPv6: names are as if they had none, and nobody waits.
	world.ip("-6 route del local ::/0 dev lo")
	h.call("all",
		[2]string{"any later.test 80", "93.184.216.41"},
		[2]string{"tcp6 later.test 80", "no such name"},
		[2]string{"tcp6 2606:2800:21f::5 80", "refused"},
	)
	for _, name := range []string{"public", "listed", "all", "none"} {
		h.ok("instance", "delete", name)
	}
}

// testLiveEgress changes what a guest may reach while it reaches it.
func testLiveEgress(t *testing.T, h *host) {
	const hold = "import socket\ns = socket.create_connection(('93.184.216.34', 9))\nprint('ready', flush=True)\ntry: print(s.recv(1))\nexcept ConnectionResetError: print('cut')"
	open := h.background("exec", "public", "--", "python3", "-c", hold)
	open.ready()
	h.ok("instance", "set", "public", "--egress", "none", "--allow-host", "93.184.216.35")
	if r := open.wait(); r.stdout != "cut\n" {
		t.Errorf("a connection that is not allowed any more says %q", r.stdout)
	}
	h.call("public",
		[2]string{"tcp 93.184.216.34 80", "refused"},
		[2]string{"tcp 93.184.216.35 80", "93.184.216.35"},
	)
	if i := h.info("public"); i.Egress != "none" || !slices.Equal(i.AllowHosts, []string{"93.184.216.35"}) {
		t.Errorf("info says %s, %q", i.Egress, i.AllowHosts)
	}
	h.ok("instance", "set", "public", "--egress", "public", "--allow-host", "")
	h.call("public", [2]string{"tcp 93.184.216.34 80", "93.184.216.34"})
}

// testCounters looks at what was counted of all that. So many denials in so short a time are
// not all told: the guest tries until one more is.
func testCounters(t *testing.T, h *host) {
	i := h.info("public")
	if i.Traffic.BytesIn == 0 || i.Traffic.BytesOut == 0 || i.Traffic.ConnectionsOut < 8 || i.Traffic.Denied < 20 {
		t.Errorf("counted: %+v", i.Traffic)
	}
	eventually(t, "a denial is told, and how to allow it", func() bool {
		h.call("public", [2]string{"tcp 10.1.2.3 80", "refused"})
		denials := h.info("public").Denials
		last := denials[len(denials)-1]
		return strings.Contains(last.Text, "tcp 10.1.2.3:80") && strings.HasPrefix(last.Allow, "--allow-host ")
	})
	if text := h.ok("instance", "info", "public"); !strings.Contains(text, " denied") || !strings.Contains(text, "egress denied: tcp") {
		t.Errorf("info:\n%s", text)
	}
}

// testDownload: a program that downloads is awake, and one that only has a connection sleeps.
func testDownload(t *testing.T, h *host) {
	for port, want := range map[string]string{"19": api.StateRunning, "9": api.StatePaused} {
		name := "port" + port
		h.ok("instance", "start", "--name", name, "--pause-after", "6s", "--stop-after", "0", "--",
			"python3", "-c", "import socket\ns = socket.create_connection(('93.184.216.34', "+port+"))\nwhile s.recv(1 << 20): pass")
		if want == api.StateRunning {
			eventually(t, "it is seen to download", func() bool { return strings.Contains(h.info(name).Busy, "KB/s") })
			if got := h.info(name).State; got != want {
				t.Errorf("one that downloads is %s", got)
			}
		} else {
			eventually(t, "one with a connection that is silent sleeps", func() bool { return h.info(name).State == want })
		}
		h.ok("instance", "delete", name)
	}
}
