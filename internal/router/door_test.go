package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// TestHalfClose has either side end its direction first, and the other answer at
// length after that.
func TestHalfClose(t *testing.T) {
	question, answer := noise(3<<20), noise(5<<20)
	exchange := func(first bool, say, expect []byte) func(*net.TCPConn) error {
		return func(c *net.TCPConn) error {
			tell := func() error {
				_, err := c.Write(say)
				return errors.Join(err, c.CloseWrite())
			}
			if first {
				if err := tell(); err != nil {
					return err
				}
			}
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, expect) {
				return fmt.Errorf("%d bytes of %d, %w", len(got), len(expect), err)
			}
			if !first {
				return tell()
			}
			return nil
		}
	}
	for name, clientFirst := range map[string]bool{"client": true, "guest": false} {
		t.Run(name, func(t *testing.T) {
			served := make(chan error, 1)
			guest := exchange(!clientFirst, answer, question)
			d := open(t, Doors{}, to(program(t, func(c *net.TCPConn) { served <- guest(c) })))
			if err := exchange(clientFirst, question, answer)(visit(t, d)); err != nil {
				t.Errorf("client: %v", err)
			}
			if err := wait(t, served); err != nil {
				t.Errorf("guest: %v", err)
			}
		})
	}
}

// TestResets breaks a connection at one end: the other sees it break, and not end.
func TestResets(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		served := make(chan error, 1)
		d := open(t, Doors{}, to(program(t, func(c *net.TCPConn) {
			_, err := c.Write([]byte("x"))
			if err == nil {
				_, err = io.Copy(io.Discard, c)
			}
			served <- err
		})))
		c := visit(t, d)
		_, err := c.Read(make([]byte, 1))
		must(t, err)
		abort(c)
		if err := wait(t, served); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("guest: %v", err)
		}
	})
	t.Run("guest", func(t *testing.T) {
		d := open(t, Doors{}, to(program(t, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("half an ans"))
			_, _ = c.Read(make([]byte, 1)) // the client has it
			abort(c)
		})))
		c := visit(t, d)
		got := make([]byte, 11)
		_, err := io.ReadFull(c, got)
		must(t, err)
		_, err = c.Write([]byte("x"))
		must(t, err)
		if _, err := c.Read(got); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client: %v", err)
		}
	})
}

// TestEarlyAnswer has a server answer and close before it has read what is sent, which
// resets the connection to it: the client still gets the whole answer.
func TestEarlyAnswer(t *testing.T) {
	answer := noise(32 << 10) // in the other's kernel when it is reset
	d := open(t, Doors{}, to(program(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Write(answer)
		_ = c.CloseWrite()
	})))
	c := visit(t, d)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 64 {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, answer) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	wait(t, sent)
}

// refuser is a guest that takes nothing, and goes on with its answer after that.
type refuser struct {
	net.Conn

	refused chan struct{}
	cut     atomic.Bool
	answer  io.Reader
}

func (r *refuser) Write([]byte) (int, error) {
	close(r.refused)
	return 0, syscall.ECONNRESET
}

func (r *refuser) Read(b []byte) (int, error) {
	<-r.refused
	time.Sleep(10 * time.Millisecond) // for what must not happen
	if r.cut.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	return r.answer.Read(b)
}

func (r *refuser) SetDeadline(time.Time) error {
	r.cut.Store(true)
	return nil
}

func (r *refuser) CloseWrite() error     { return nil }
func (r *refuser) Abort()                {}
func (r *refuser) Gone() context.Context { return context.Background() }

// TestRefusedUpload has the answer come after the guest has refused what is sent.
func TestRefusedUpload(t *testing.T) {
	guest := &refuser{refused: make(chan struct{}), answer: strings.NewReader("too much")}
	c := visit(t, open(t, Doors{}, func(context.Context) (instance.GuestConn, error) { return guest, nil }))
	_, err := io.WriteString(c, "much")
	must(t, err)
	if got, err := io.ReadAll(c); err != nil || string(got) != "too much" {
		t.Errorf("%q, %v", got, err)
	}
	for range 3 {
		if _, err := io.WriteString(c, "more"); err != nil { // a reset could overtake the answer
			t.Errorf("a client that goes on is broken off: %v", err)
		}
	}
}

// sleeper is a guest that wakes when it is told to.
type sleeper struct {
	addr   string
	called chan context.Context // of every connect
	wake   chan struct{}
}

func newSleeper(addr string) *sleeper {
	return &sleeper{addr, make(chan context.Context, 1000), make(chan struct{})}
}

func (s *sleeper) connect(ctx context.Context) (instance.GuestConn, error) {
	s.called <- ctx
	select {
	case <-s.wake:
		return dialTCP(ctx, s.addr)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// TestEarlyData has clients speak before their guest is awake.
func TestEarlyData(t *testing.T) {
	for _, n := range []int{0, 1, maxEarly - 1, maxEarly, maxEarly + 1, 1 << 20} {
		for _, ended := range []bool{false, true} {
			t.Run(fmt.Sprint(n, ended), func(t *testing.T) {
				s := newSleeper(program(t, echo))
				d := open(t, Doors{}, s.connect)
				c := visit(t, d)
				said, sent := noise(n), make(chan error, 1)
				go func() { // more than fits into sockets waits for the guest
					_, err := c.Write(said)
					if ended && err == nil {
						err = c.CloseWrite()
					}
					sent <- err
				}()
				wait(t, s.called)
				if n <= maxEarly {
					must(t, wait(t, sent))
				}
				close(s.wake)
				got := make([]byte, n)
				_, err := io.ReadFull(c, got)
				if err != nil || !bytes.Equal(got, said) {
					t.Errorf("not what was said: %v", err)
				}
				if n > maxEarly {
					must(t, wait(t, sent))
				}
				if !ended {
					must(t, c.CloseWrite())
				}
				if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
					t.Errorf("%d bytes more, %v", len(rest), err)
				}
			})
		}
	}
}

// TestClientLeavesWhileWaking resets connections whose guest is not awake yet.
func TestClientLeavesWhileWaking(t *testing.T) {
	for name, before := range map[string]func(*net.TCPConn) error{
		"silent":      func(*net.TCPConn) error { return nil },
		"half closed": (*net.TCPConn).CloseWrite,
		"talkative": func(c *net.TCPConn) error {
			_, err := c.Write(make([]byte, 2*maxEarly))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSleeper("")
			c := visit(t, open(t, Doors{}, s.connect))
			must(t, before(c))
			ctx := wait(t, s.called)
			time.Sleep(10 * time.Millisecond) // for what must not happen
			if err := context.Cause(ctx); err != nil {
				t.Fatalf("given up on a client that is there: %v", err)
			}
			abort(c)
			wait(t, ctx.Done())
			if err := context.Cause(ctx); !errors.Is(err, errClientLeft) {
				t.Errorf("cause = %v", err)
			}
		})
	}
}

// TestClientLeavesSilentGuest has a client end its direction, and then go altogether,
// while the guest neither reads nor answers: the connection must not stay.
func TestClientLeavesSilentGuest(t *testing.T) {
	ended, broken := make(chan struct{}), make(chan bool, 1)
	d := open(t, Doors{}, to(program(t, func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		must(t, err)
		close(ended)
		broken <- awaitReset(c)
	})))
	c := visit(t, d)
	must(t, c.CloseWrite())
	wait(t, ended)
	abort(c)
	if !wait(t, broken) {
		t.Error("the guest has a client for as long as it likes")
	}
}

// TestWakeFails tells clients that speak HTTP/1 why they have no answer.
func TestWakeFails(t *testing.T) {
	asleep := fault.New(fault.Exhausted, "no memory <for> it").WithHint("stop something")
	refused := fault.Wrap(fault.Unavailable, syscall.ECONNREFUSED, "nothing listens").By(fault.Program)
	get := "GET /x HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
	for name, c := range map[string]struct {
		say  string
		err  error
		want []string // in the answer; nil is a reset
	}{
		"JSON":     {get + "\r\n", asleep, []string{"HTTP/1.1 503 ", "Retry-After: 3\r\n", "Connection: close\r\n", "application/json", `"error":"no memory`, `"hint":"stop something"`, `"code":"exhausted"`}},
		"browser":  {get + "Accept: text/html,*/*;q=0.8\r\n\r\n", asleep, []string{"HTTP/1.1 503 ", "Retry-After: 3\r\n", "text/html", "no memory &lt;for&gt; it", "stop something"}},
		"prefers":  {get + "Accept: application/json, text/html\r\n\r\n", asleep, []string{"application/json"}},
		"1.0":      {"GET / HTTP/1.0\r\n\r\n", asleep, []string{" 503 ", "no memory"}},
		"body":     {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), asleep, []string{" 503 ", "no memory"}},
		"HEAD":     {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", asleep, []string{" 503 ", "Content-Length: "}},
		"refused":  {get + "\r\n", refused, []string{"HTTP/1.1 502 ", "nothing listens"}},
		"deleted":  {get + "\r\n", fault.Wrap(fault.NotFound, instance.ErrDeleted, "web"), []string{"HTTP/1.1 404 "}},
		"spawn":    {get + "\r\n", fault.New(fault.NotFound, "no-such: command not found").By(fault.Program), []string{"HTTP/1.1 503 "}},
		"plain":    {get + "\r\n", errors.New("some reason"), []string{"HTTP/1.1 503 ", "some reason"}},
		"silence":  {"", asleep, nil},
		"half":     {get, asleep, nil},
		"raw":      {"hello there\r\n\r\n", asleep, nil},
		"HTTP/2":   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", asleep, nil},
		"TLS":      {"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03", asleep, nil},
		"too long": {get + "X: " + strings.Repeat("x", maxEarly) + "\r\n\r\n", asleep, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fail := make(chan struct{})
			d := open(t, Doors{}, func(context.Context) (instance.GuestConn, error) {
				<-fail
				return nil, c.err
			})
			client := visit(t, d)
			_, err := io.WriteString(client, c.say)
			must(t, err)
			close(fail)
			got, err := io.ReadAll(client)
			for range 3 {
				if _, err := io.WriteString(client, "more"); err != nil && c.want != nil {
					t.Errorf("a client that goes on is broken off: %v", err)
				}
			}
			if c.want == nil {
				if !errors.Is(err, syscall.ECONNRESET) || len(got) != 0 {
					t.Errorf("%q, %v, want a reset", got, err)
				}
				return
			}
			for _, want := range c.want {
				if err != nil || !strings.Contains(string(got), want) {
					t.Errorf("%q, %v, want %q in it", got, err, want)
				}
			}
			if name == "HEAD" && !bytes.HasSuffix(got, []byte("\r\n\r\n")) {
				t.Errorf("%q has a body", got)
			}
		})
	}
}

// TestDoorTimesOut has an instance that never wakes.
func TestDoorTimesOut(t *testing.T) {
	c := visit(t, open(t, Doors{Wake: 50 * time.Millisecond}, newSleeper("").connect))
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	must(t, err)
	got, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(got), " 503 ") || !strings.Contains(string(got), "not ready within 50ms") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestDoorCloses closes a door that leads clients to all sorts of places.
func TestDoorCloses(t *testing.T) {
	asleep := newSleeper("")
	served := make(chan error, 1)
	addr := program(t, func(c *net.TCPConn) {
		_, err := io.Copy(struct{ io.Writer }{c}, c)
		served <- err
	})
	var calls atomic.Int32
	d := open(t, Doors{}, func(ctx context.Context) (instance.GuestConn, error) {
		switch calls.Add(1) {
		case 1:
			return dialTCP(ctx, addr)
		case 2:
			return nil, errors.New("out of luck")
		}
		return asleep.connect(ctx)
	})
	talking := visit(t, d)
	_, err := talking.Write([]byte("x"))
	must(t, err)
	_, err = talking.Read(make([]byte, 1))
	must(t, err)
	// It has its answer, and keeps the connection.
	told := visit(t, d)
	_, err = io.WriteString(told, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	must(t, err)
	_, err = told.Read(make([]byte, 1))
	must(t, err)
	waiting := visit(t, d)
	ctx := wait(t, asleep.called)

	must(t, d.Close())
	d.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errShut) {
		t.Errorf("the cause is %v", err)
	}
	for name, c := range map[string]net.Conn{"talking": talking, "waiting": waiting} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := wait(t, served); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("guest: %v", err)
	}
	if c, err := net.Dial("tcp", d.ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("a closed door takes clients")
	}
	if err := d.Close(); err == nil {
		t.Error("closed twice without an error")
	}
}

// TestDoorLimit has more clients than a door takes: the others wait for their turn.
func TestDoorLimit(t *testing.T) {
	s := newSleeper(program(t, echo))
	close(s.wake)
	d := open(t, Doors{Conns: 2}, s.connect)
	clients := []*net.TCPConn{visit(t, d), visit(t, d), visit(t, d)}
	for _, c := range clients {
		_, err := c.Write([]byte("x"))
		must(t, err)
	}
	for _, c := range clients[:2] {
		_, err := c.Read(make([]byte, 1))
		must(t, err)
	}
	if n := len(s.called); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	must(t, clients[0].Close())
	_, err := clients[2].Read(make([]byte, 1))
	must(t, err)
}

func TestManyConnections(t *testing.T) {
	s := newSleeper(program(t, echo))
	d := open(t, Doors{}, s.connect)
	said := noise(20 << 10)
	var wg sync.WaitGroup
	for range 500 {
		c := visit(t, d)
		wg.Go(func() {
			_, err := c.Write(said)
			if err := errors.Join(err, c.CloseWrite()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, said) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			_ = c.Close()
		})
	}
	for range 500 {
		wait(t, s.called)
	}
	close(s.wake)
	wg.Wait()
}

func TestDoorLeavesNothing(t *testing.T) {
	d := open(t, Doors{}, to(program(t, echo)))
	times := 10000
	if testing.Short() {
		times = 500
	}
	noGrowth(t, times, func() {
		c, err := net.Dial("tcp", d.ln.Addr().String())
		must(t, err)
		defer c.Close() //nolint:errcheck // a test's
		_, err = c.Write([]byte("x"))
		must(t, err)
		_, err = io.ReadFull(c, make([]byte, 1))
		must(t, err)
	})
}

func TestPorts(t *testing.T) {
	doors := Doors{Log: slog.New(slog.DiscardHandler)}
	loop := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	seen := map[uint16]bool{}
	nobody := func(context.Context) (instance.GuestConn, error) { return nil, syscall.ECONNREFUSED }
	for range 20 {
		d := open(t, doors, nobody)
		p := d.Port()
		if p < firstChosen || p > lastChosen || seen[p] {
			t.Errorf("port %d was chosen", p)
		}
		seen[p] = true
		same := netip.AddrPortFrom(loop, p)
		if _, err := doors.Open(same, nobody); fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" || !strings.Contains(err.Error(), strconv.Itoa(int(p))) {
			t.Errorf("a port that is taken: %v", err)
		}
		// What clients leave in the system does not keep the number from the next daemon.
		c := visit(t, d)
		must(t, d.Close())
		d.Wait()
		next, err := doors.Open(same, nobody)
		if err != nil {
			t.Errorf("a port that was given back: %v", err)
			continue
		}
		_ = c.Close()
		must(t, next.Close())
		next.Wait()
	}
	if _, err := doors.Open(netip.MustParseAddrPort("192.0.2.1:8080"), nobody); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("an address of elsewhere: %v", err)
	}
	at := netip.AddrPortFrom(loop, 80)
	if err := listenFault(at, os.NewSyscallError("bind", syscall.EACCES)); fault.KindOf(err) != fault.Denied || fault.HintOf(err) == "" {
		t.Errorf("a privileged port: %v", err)
	}
	if err := listenFault(at, os.NewSyscallError("socket", syscall.EMFILE)); fault.BlameOf(err) != fault.Host || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("another reason: %v", err)
	}
}
