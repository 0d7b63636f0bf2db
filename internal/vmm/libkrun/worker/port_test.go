package worker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// testPort runs a port; guest is the other end of its stream.
func testPort(t *testing.T, frames bool) (guest net.Conn, dial func() net.Conn) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	guest, theirs := net.Pipe()
	p := newPort(theirs, l, frames)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run()
	}()
	t.Cleanup(func() {
		_ = l.Close()
		_ = guest.Close()
		<-done
		goleak.VerifyNone(t, leaks)
	})
	return guest, func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

func expect(t *testing.T, from io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(from, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func send(t *testing.T, to io.Writer, what string) {
	t.Helper()
	if _, err := io.WriteString(to, what); err != nil {
		t.Fatal(err)
	}
}

func framed(payload string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(payload)))) + payload
}

const (
	one = "frame one of the test"
	two = "frame two of the test, a longer one"
)

func TestBytes(t *testing.T) {
	guest, dial := testPort(t, false)
	first := dial()
	send(t, first, "hello")
	expect(t, guest, "hello")
	send(t, guest, "there")
	expect(t, first, "there")

	// A second client takes the first's place, who finds out.
	second := dial()
	send(t, second, "again")
	expect(t, guest, "again")
	if n, err := first.Read(make([]byte, 1)); err == nil {
		t.Errorf("the first client reads %d bytes", n)
	}
	send(t, guest, "indeed")
	expect(t, second, "indeed")
}

// TestFramesAreWhole shows that the guest gets no part of a frame that was not sent to
// its end.
func TestFramesAreWhole(t *testing.T) {
	guest, dial := testPort(t, true)
	first := dial()
	send(t, first, framed(one)+framed(two)[:10])
	expect(t, guest, framed(one))
	_ = first.Close()
	second := dial()
	send(t, second, framed(two))
	expect(t, guest, framed(two))
}

// TestFramesAreDropped shows that a guest whose card has no cable is not kept waiting,
// and that a client begins with a whole frame.
func TestFramesAreDropped(t *testing.T) {
	guest, dial := testPort(t, true)
	for range 100 {
		send(t, guest, framed(one))
	}
	c := dial()
	first := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		from := bufio.NewReader(c)
		b, _ := appendFrame(nil, from) // an error leaves it short
		first <- string(b)
		_, _ = io.Copy(io.Discard, from) // until c is closed
	}()
	for len(first) == 0 { // the client has not been accepted yet
		send(t, guest, framed(two))
	}
	// A frame one may still have been on its way.
	if got := <-first; got != framed(one) && got != framed(two) {
		t.Errorf("got %q", got)
	}
	_ = c.Close()
	<-done
}

// TestFrameLengths cuts off a client that sends what would end the VM.
func TestFrameLengths(t *testing.T) {
	guest, dial := testPort(t, true)
	for _, n := range []uint32{0, minFrame - 1, maxFrame + 1, 1 << 31} {
		c := dial()
		if _, err := c.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes", n)
		}
	}
	send(t, dial(), framed(one))
	expect(t, guest, framed(one))
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte(framed(one) + framed(two)))
	f.Add([]byte(framed(one)[:9]))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		var out []byte
		for {
			begin := len(out)
			b, err := appendFrame(out, r)
			if err != nil {
				break
			}
			if n := len(b) - begin - lengthSize; n < minFrame || n > maxFrame {
				t.Fatalf("a frame of %d bytes", n)
			}
			out = b
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatal("what comes out is not what went in")
		}
	})
}
