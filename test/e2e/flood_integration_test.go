//go:build integration

package e2e

import (
	"strings"
	"testing"
)

// flooder does for as many seconds as its argument says what a network has to bear:
// connections that are kept, half-open ones, datagrams and questions to everywhere, and
// ARP for the whole network.
const flooder = `
import os, random, socket, struct, sys, threading, time
end = time.monotonic() + float(sys.argv[1])
done = dict.fromkeys(('connect', 'halfopen', 'udp', 'dns', 'arp'), 0)
def loop(what, one):
    while time.monotonic() < end:
        try: one()
        except OSError: pass
        done[what] += 1
kept = []
def connect():
    s = socket.socket(); s.settimeout(2); kept.append(s); s.connect(('93.184.%d.%d' % (random.randrange(256), random.randrange(256)), 80))
    if len(kept) > 800: kept.pop(0).close()
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); raw.bind(('eth0', 0))
me = raw.getsockname()[4]
src = socket.inet_aton('192.168.127.2')
def checksum(b):
    if len(b) % 2: b += b'\0'
    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
def halfopen():
    dst = bytes([93, 184, random.randrange(256), random.randrange(256)])
    tcp = struct.pack('!HHIIBBHHH', random.randrange(1024, 65536), 80, random.getrandbits(32), 0, 5 << 4, 2, 65535, 0, 0)
    tcp = tcp[:16] + struct.pack('!H', checksum(src + dst + struct.pack('!BBH', 0, 6, 20) + tcp)) + tcp[18:]
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 40, random.getrandbits(16), 0, 64, 6, 0, src, dst)
    ip = ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:]
    raw.send(b'\xff' * 6 + me + b'\x08\x00' + ip + tcp)
def arp():
    raw.send(b'\xff' * 6 + me + b'\x08\x06' + struct.pack('!HHBBH6s4s6s4s', 1, 0x0800, 6, 4, 1, me, src, bytes(6), bytes([192, 168, 127, random.randrange(3, 250)])))
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(bytes(1000), ('93.184.%d.%d' % (random.randrange(256), random.randrange(256)), random.randrange(1, 65536))); s.close()
def dns():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    name = b'%016x' % random.getrandbits(64)
    s.sendto(struct.pack('!HHHHHH', random.getrandbits(16), 0x100, 1, 0, 0, 0) + bytes([16]) + name + b'\x04test\0\0\x01\0\x01', ('192.168.127.1', 53)); s.close()
threads = [threading.Thread(target=loop, args=(f.__name__, f)) for f in (connect, halfopen, udp, dns, arp)]
for t in threads: t.start()
for t in threads: t.join()
print(done)
`

// TestNetworkFlood: a guest that floods its network costs the daemon bounded memory, and no
// other guest its service; nor itself, when it has stopped.
func TestNetworkFlood(t *testing.T) {
	newInternet(t, "8.8.4.4", "2a00:1450::1", map[string]string{"example.test": "93.184.216.34"})
	h := newHost(t)
	url := h.teller("quiet")
	h.ok("instance", "start", "--name", "noisy", "--memory", "256", "--", "sleep", "100000")
	h.ask(url)
	before := h.daemonMemory()
	flood := h.aegis("exec", "noisy", "--", "python3", "-c", flooder, stress("8", "120"))
	var out strings.Builder
	flood.Stdout, flood.Stderr = &out, &out
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- flood.Wait() }()
	most, answers := before, 0
	for running := true; running; {
		h.ask(url)
		answers++
		most = max(most, h.daemonMemory())
		select {
		case err := <-ended:
			if running = false; err != nil {
				t.Errorf("the flood: %v", err)
			}
		default:
		}
	}
	t.Logf("%s%d answers of the other VM; the daemon grew from %d to %d MB", out.String(), answers, before>>20, most>>20)
	const limit = 150 << 20 // what all limits of one network add up to, with the collector's slack
	if most-before > limit {
		t.Errorf("the daemon grew by %d MB", (most-before)>>20)
	}
	h.call("noisy", [2]string{"tcp example.test 80", "93.184.216.34"})
	for _, name := range []string{"quiet", "noisy"} {
		h.ok("instance", "delete", name)
	}
}
