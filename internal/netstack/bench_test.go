package netstack

import (
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/xfeldman/aegisvm/internal/netstack/netstacktest"
)

// The guest of these benchmarks is a stack in the same process: it shares the
// processors with what is measured. The floor is a socket pair, which is all there is
// between a VMM and the daemon.

// exchange is a byte there and back.
func exchange(b *testing.B, c net.Conn) {
	b.Helper()
	one := []byte{1}
	if _, err := c.Write(one); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(c, one); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkDialIntoTheGuest(b *testing.B) {
	r := start(b)
	r.echoInGuest(b)
	for b.Loop() {
		c, err := r.Dial(b.Context(), 80)
		if err != nil {
			b.Fatal(err)
		}
		exchange(b, c)
		_ = c.Close()
	}
}

func BenchmarkGuestDialsOut(b *testing.B) {
	r := start(b)
	r.world.serve(b, "93.184.216.34:1", echo)
	for b.Loop() {
		c, err := r.guest.Dial(b.Context(), ap("93.184.216.34:1"))
		if err != nil {
			b.Fatal(err)
		}
		exchange(b, c)
		_ = c.Close()
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		x, y := netstacktest.Pair(b)
		go func() { _, _ = io.Copy(y, y) }()
		for b.Loop() {
			exchange(b, x)
		}
	})
	b.Run("inbound", func(b *testing.B) {
		r := start(b)
		r.echoInGuest(b)
		c, err := r.Dial(b.Context(), 80)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			exchange(b, c)
		}
	})
}

const block = 1 << 20

// push writes blocks to c until the benchmark ends.
func push(b *testing.B, c net.Conn) {
	b.Helper()
	buf := make([]byte, block)
	b.SetBytes(block)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// pull reads blocks from c.
func pull(b *testing.B, c net.Conn) {
	b.Helper()
	buf := make([]byte, block)
	b.SetBytes(block)
	for b.Loop() {
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func drain(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func spout(c net.Conn) {
	buf := make([]byte, block)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

func BenchmarkThroughput(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		x, y := netstacktest.Pair(b)
		go drain(y)
		push(b, x)
	})
	inbound := func(b *testing.B, guest func(net.Conn)) net.Conn {
		b.Helper()
		r := start(b)
		l, err := r.guest.Listen(80)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				guest(c)
			}
		}()
		c, err := r.Dial(b.Context(), 80)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	b.Run("inbound push", func(b *testing.B) { push(b, inbound(b, drain)) })
	b.Run("inbound pull", func(b *testing.B) { pull(b, inbound(b, spout)) })
	outbound := func(b *testing.B, outside func(*net.TCPConn)) net.Conn {
		b.Helper()
		r := start(b)
		r.world.serve(b, "93.184.216.34:1", outside)
		c, err := r.guest.Dial(b.Context(), ap("93.184.216.34:1"))
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	b.Run("outbound push", func(b *testing.B) { push(b, outbound(b, func(c *net.TCPConn) { drain(c) })) })
	b.Run("outbound pull", func(b *testing.B) { pull(b, outbound(b, func(c *net.TCPConn) { spout(c) })) })
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		n, err := New(Config{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		_ = n.Close()
	}
}
