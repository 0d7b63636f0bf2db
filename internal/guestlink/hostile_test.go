package guestlink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// dialFunc is a Dialer.
type dialFunc func(context.Context) (net.Conn, error)

func (f dialFunc) DialGuest(ctx context.Context) (net.Conn, error) { return f(ctx) }

// hostile is a guest that answers openings well and then does what it likes.
func hostile(t *testing.T, then func(net.Conn)) Dialer {
	t.Helper()
	return dialFunc(func(context.Context) (net.Conn, error) {
		host, guest := net.Pipe()
		go func() { // ends with the connection
			defer func() { _ = guest.Close() }()
			opening := make([]byte, guestproto.OpeningSize)
			if _, err := io.ReadFull(guest, opening); err != nil {
				return
			}
			if _, err := guest.Write(append([]byte("noise of sessions before"), opening...)); err != nil {
				return
			}
			then(guest)
		}()
		return host, nil
	})
}

// fakeMux serves streams like a guest, up to what misbehave does on attach streams.
func fakeMux(welcome guestproto.Welcome, misbehave func(*yamux.Stream)) func(net.Conn) {
	return func(conn net.Conn) {
		mux, err := yamux.Server(conn, muxConfig())
		if err != nil {
			return
		}
		defer func() { _ = mux.Close() }()
		for {
			stream, err := mux.AcceptStream()
			if err != nil {
				return
			}
			go func() { // ends with the session
				m, err := guestproto.ReadMessage(stream)
				var header guestproto.StreamHeader
				if err != nil || m.Decode(&header) != nil {
					return
				}
				_ = guestproto.WriteMessage(stream, guestproto.Message{Type: guestproto.TypeStream}, guestproto.StreamReply{})
				if header.Kind == guestproto.StreamAttach {
					misbehave(stream)
					return
				}
				for {
					m, err := guestproto.ReadMessage(stream)
					if err != nil {
						return
					}
					_ = guestproto.WriteMessage(stream, guestproto.Message{ID: m.ID, Type: m.Type}, welcome)
				}
			}()
		}
	}
}

func TestHostileStreams(t *testing.T) {
	for name, b := range map[string][]byte{
		"a frame that goes the other way": frame.Append(nil, frame.Stdin, []byte("x")),
		"an unknown frame":                frame.Append(nil, 77, nil),
		"an exit that is none":            frame.Append(nil, frame.Exit, []byte("x")),
		"input taken that was not sent":   frame.Append(nil, frame.Ack, frame.EncodeOffset(1)),
		"a bad acknowledgement":           frame.Append(nil, frame.Ack, []byte("x")),
		"a frame that is too large":       {1, 0xff, 0xff, 0xff, 0xff},
		"half a frame":                    {1, 0, 0, 0, 5, 'x'},
		"nothing":                         {},
	} {
		t.Run(name, func(t *testing.T) {
			guest := hostile(t, fakeMux(guestproto.Welcome{Version: 1}, func(s *yamux.Stream) {
				_, _ = s.Write(b)
				_ = s.Close()
			}))
			l, err := Open(t.Context(), testLog(t), guest, guestproto.NewMagic(), hello())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			a, err := l.Attach(t.Context(), "x", 0)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				f, err := a.Recv()
				if err != nil {
					if !errors.Is(err, errProtocol) {
						t.Errorf("Recv = %v", err)
					}
					return
				}
				t.Fatalf("Recv %d = %+v", i, f)
			}
		})
	}
}

func TestHostileSessions(t *testing.T) {
	header := func(kind byte, flags uint16, stream, length uint32) []byte {
		b := binary.BigEndian.AppendUint16([]byte{0, kind}, flags)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, stream), length)
	}
	for name, then := range map[string]func(net.Conn){
		"noise": func(c net.Conn) {
			for b := bytes.Repeat([]byte{0xab}, 1000); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		},
		"pings": func(c net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for i := uint32(0); ; i++ {
				if _, err := c.Write(header(typePing, flagSYN, 0, i)); err != nil {
					return
				}
			}
		},
		"streams": func(c net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for i := uint32(2); ; i += 2 {
				if _, err := c.Write(header(1, flagSYN, i, 0)); err != nil {
					return
				}
			}
		},
		"a version of the future": fakeMux(guestproto.Welcome{Version: 99}, nil),
		"the end":                 func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			l, err := Open(ctx, testLog(t), hostile(t, then), guestproto.NewMagic(), hello())
			if err == nil {
				_ = l.Close()
				t.Fatal("a link was made")
			}
			t.Log(err)
		})
	}
}

// A guest that says nothing, or too much, does not hold the host for ever.
func TestOpeningEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		var heard bytes.Buffer
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(&heard, guest) }()
		begun := time.Now()
		if _, err := open(t.Context(), host, guestproto.NewMagic(), 450*time.Millisecond); !errors.Is(err, errNoEcho) {
			t.Errorf("open = %v", err)
		}
		if took := time.Since(begun); took != 450*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		<-done
		if n := heard.Len(); n != 5*guestproto.OpeningSize {
			t.Errorf("%d bytes of openings in 450 ms", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { cancel(io.ErrNoProgress) }()
		if _, err := open(ctx, host, guestproto.NewMagic(), time.Hour); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("open under an ended context = %v", err)
		}
		_ = guest.Close()
	})
}

// What stands around the echo is thrown away before it and kept behind it, however
// reads cut it.
func TestEchoAcrossReads(t *testing.T) {
	mark := guestproto.Opening(guestproto.NewMagic(), guestproto.NewNonce())
	stale := slices.Concat(bytes.Repeat([]byte("x"), 200_000), mark[:39], mark[:20])
	in := slices.Concat(stale, mark, []byte("rest"))
	for _, step := range []int{1, 7, 39, 40, 41, 64 << 10, len(in)} {
		host, guest := net.Pipe()
		go func() {
			for c := range slices.Chunk(in, step) {
				_, _ = guest.Write(c)
			}
			_ = guest.Close()
		}()
		rest, err := discardUntil(host, mark)
		if err != nil || !bytes.Equal(rest, []byte("rest")[:min(len(rest), 4)]) {
			t.Errorf("steps of %d: %q, %v", step, rest, err)
		}
		_ = host.Close()
	}
}

func FuzzAttachment(f *testing.F) {
	f.Add(frame.Append(frame.Append(nil, frame.Stdout, []byte("hi")), frame.Exit, frame.EncodeStatus(7)))
	f.Add(frame.Append(nil, frame.Ack, frame.EncodeOffset(3)))
	f.Add(frame.Append(nil, frame.Ack, frame.EncodeOffset(1<<63)))
	f.Fuzz(func(t *testing.T, in []byte) {
		a := &attachment{changed: make(chan struct{})}
		a.in.add([]byte("hello"))
		for r := frame.NewReader(bytes.NewReader(in)); ; {
			fr, err := r.Next()
			if err != nil {
				break
			}
			if _, err := a.take(fr); err != nil {
				break
			}
		}
		if a.log > uint64(len(in)) || a.in.end() != 5 || a.in.base > 5 {
			t.Fatalf("log at %d after %d bytes, input %d to %d", a.log, len(in), a.in.base, a.in.end())
		}
	})
}

func FuzzGuard(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 'h', 'i', 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, uint8(5))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		whole, pieces := &guard{}, &guard{}
		want := whole.check(in)
		var got error
		for c := range slices.Chunk(in, int(step)+1) {
			if got = pieces.check(c); got != nil {
				break
			}
		}
		if (got == nil) != (want == nil) {
			t.Fatalf("%v in pieces, %v in the whole", got, want)
		}
	})
}
