package guestlink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a guest on a pipe, and the way to its host's end.
type rig struct {
	pipe  *guesttest.Pipe
	magic guestproto.Magic

	mu    sync.Mutex
	conn  net.Conn
	dials atomic.Int32
	err   error // what DialGuest returns
}

func (r *rig) DialGuest(ctx context.Context) (net.Conn, error) {
	r.dials.Add(1)
	r.mu.Lock()
	err := r.err
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	conn, err := r.pipe.Dial(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn = conn
	return conn, nil
}

// cut drops the connection under the link.
func (r *rig) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

func newRig(t *testing.T, opts guesttest.Options) *rig {
	t.Helper()
	r := &rig{pipe: guesttest.NewPipe(), magic: guestproto.NewMagic()}
	opts.Magic = r.magic
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- guesttest.Serve(ctx, r.pipe.Device(), opts) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("guest: %v", err)
		}
	})
	return r
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func hello() guestproto.Hello {
	rekey := guestproto.NewMagic()
	return guestproto.Hello{
		MinVersion: guestproto.MinVersion, Version: guestproto.Version, Rekey: &rekey,
		Identity: &guestproto.Identity{Instance: "inst-1", Hostname: "box"},
	}
}

func (r *rig) open(t *testing.T) *Link {
	t.Helper()
	l, err := Open(t.Context(), testLog(t), r, r.magic, hello())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func start(t *testing.T, l *Link, req guestproto.Spawn) instance.Attachment {
	t.Helper()
	if err := l.Spawn(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	a, err := l.Attach(t.Context(), req.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// drain receives until the end.
func drain(a instance.Attachment, stdout, stderr io.Writer) (int32, error) {
	status := int32(-1)
	for {
		f, err := a.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return status, nil
		case err != nil:
			return status, err
		}
		switch f.Type { //nolint:exhaustive // the others are an error
		case frame.Stdout:
			_, err = stdout.Write(f.Payload)
		case frame.Stderr:
			_, err = stderr.Write(f.Payload)
		case frame.Exit:
			status, err = f.Status()
		default:
			err = fmt.Errorf("frame of type %d", f.Type)
		}
		if err != nil {
			return status, err
		}
	}
}

func run(t *testing.T, l *Link, id guestproto.ExecID, command ...string) (stdout, stderr string, status int32) {
	t.Helper()
	a := start(t, l, guestproto.Spawn{ID: id, Command: command, Env: []string{"A=1", "B=2"}})
	var out, errOut bytes.Buffer
	status, err := drain(a, &out, &errOut)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), status
}

func TestRuns(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	for i, c := range []struct {
		command     []string
		out, errOut string
		status      int32
	}{
		{[]string{"true"}, "", "", 0},
		{[]string{"false"}, "", "", 1},
		{[]string{"echo", "hi"}, "hi\n", "", 0},
		{[]string{"env"}, "A=1\nB=2\n", "", 0},
		{[]string{"sh", "-c", "echo out; echo err >&2; exit 7"}, "out\n", "err\n", 7},
	} {
		out, errOut, status := run(t, l, guestproto.ExecID(fmt.Sprint("exec-", i)), c.command...)
		if out != c.out || errOut != c.errOut || status != c.status {
			t.Errorf("%v: %q, %q, %d", c.command, out, errOut, status)
		}
	}
	if len(l.owned) != 0 || len(l.attached) != 0 {
		t.Errorf("after all runs the link owns %v, attached %v", l.owned, l.attached)
	}
}

func TestSpawnErrors(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	for _, c := range []struct {
		command string
		code    guestproto.Code
		kind    fault.Kind
		msg     string
	}{
		{"foo", guestproto.CodeNoCommand, fault.NotFound, `exec "foo": command not found in the VM`},
		{"/etc/passwd", guestproto.CodeNotExecutable, fault.Invalid, `exec "/etc/passwd": /etc/passwd: permission denied`},
	} {
		err := l.Spawn(t.Context(), guestproto.Spawn{ID: "e", Command: []string{c.command}})
		said, ok := errors.AsType[*guestproto.Error](err)
		if !ok || said.Code != c.code || fault.KindOf(err) != c.kind || err.Error() != c.msg || fault.HintOf(err) == "" || fault.BlameOf(err) != fault.Program {
			t.Errorf("%s: %v (kind %s)", c.command, err, fault.KindOf(err))
		}
	}
	err := l.Spawn(t.Context(), guestproto.Spawn{ID: "e", Command: []string{"./foo"}})
	if fault.KindOf(err) != fault.NotFound || fault.HintOf(err) != pathHint {
		t.Errorf("./foo: %v, hint %q", err, fault.HintOf(err))
	}
	err = l.Kill(t.Context(), "nobody", 9)
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("kill of nothing = %v", err)
	}
	if _, err := l.Attach(t.Context(), "nobody", 0); fault.KindOf(err) != fault.NotFound {
		t.Errorf("attach to nothing = %v", err)
	}
	if len(l.owned) != 0 {
		t.Errorf("the link owns %v", l.owned)
	}
}

func TestRootfsError(t *testing.T) {
	r := newRig(t, guesttest.Options{Rootfs: errors.New("no disk \x1b[31m\"base\"")})
	_, err := Open(t.Context(), testLog(t), r, r.magic, hello())
	if fault.BlameOf(err) != fault.Image || !strings.Contains(err.Error(), `no disk  [31m"base"`) {
		t.Errorf("Open = %v", err)
	}
}

func TestStdin(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	a := start(t, l, guestproto.Spawn{ID: "cat", Command: []string{"cat"}, Stdin: true})
	in := make([]byte, 5<<20)
	for i := range in {
		in[i] = byte(rand.Uint32())
	}
	sent := make(chan error)
	go func() { sent <- send(a, in) }()
	var out bytes.Buffer
	status, err := drain(a, &out, io.Discard)
	if sendErr := <-sent; err != nil || sendErr != nil || status != 0 || !bytes.Equal(out.Bytes(), in) {
		t.Errorf("cat: %d bytes of %d, status %d, %v, %v", out.Len(), len(in), status, err, sendErr)
	}
	if err := a.Send(frame.Frame{Type: frame.Stdin, Payload: []byte("x")}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Send after the end = %v", err)
	}
}

func send(a instance.Attachment, in []byte) error {
	for len(in) > 0 {
		n := min(len(in), 1+rand.IntN(100_000))
		if err := a.Send(frame.Frame{Type: frame.Stdin, Payload: in[:n]}); err != nil {
			return err
		}
		in = in[n:]
	}
	return a.Send(frame.Frame{Type: frame.EOF})
}

func TestTerminal(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	a := start(t, l, guestproto.Spawn{ID: "tty", Command: []string{"tty"}, Stdin: true, TTY: &frame.Winsize{Cols: 80, Rows: 24}})
	expect(t, a, "80x24\r\n")
	if err := a.Send(frame.Frame{Type: frame.Resize, Payload: frame.Winsize{Cols: 100, Rows: 30}.Encode()}); err != nil {
		t.Fatal(err)
	}
	expect(t, a, "100x30\r\n")
	if err := a.Send(frame.Frame{Type: frame.Stdin, Payload: []byte("hi\n")}); err != nil {
		t.Fatal(err)
	}
	expect(t, a, "hi\r\n")
	if err := a.Send(frame.Frame{Type: frame.Stdin, Payload: []byte{3}}); err != nil {
		t.Fatal(err)
	}
	if status, err := drain(a, io.Discard, io.Discard); status != 130 || err != nil {
		t.Errorf("after Ctrl-C: %d, %v", status, err)
	}
}

func expect(t *testing.T, a instance.Attachment, want string) {
	t.Helper()
	var got []byte
	for len(got) < len(want) {
		f, err := a.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, f.Payload...)
	}
	if string(got) != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestSignals(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	a := start(t, l, guestproto.Spawn{ID: "trap", Command: []string{"trap"}})
	expect(t, a, "ready\n")
	if err := a.Send(frame.Frame{Type: frame.Signal, Payload: []byte{10}}); err != nil {
		t.Fatal(err)
	}
	expect(t, a, "signal 10\n")
	if err := l.Kill(t.Context(), "trap", 9); err != nil {
		t.Fatal(err)
	}
	if status, err := drain(a, io.Discard, io.Discard); status != 137 || err != nil {
		t.Errorf("after SIGKILL: %d, %v", status, err)
	}
}

// A consumer that stops reading stops its process and nothing else.
func TestBackpressure(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	stuck := start(t, l, guestproto.Spawn{ID: "stuck", Command: []string{"yes"}})
	if _, err := stuck.Recv(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if out, _, _ := run(t, l, guestproto.ExecID(fmt.Sprint("exec-", i)), "echo", "x"); out != "x\n" {
			t.Fatalf("echo beside a stuck stream: %q", out)
		}
	}
	big := start(t, l, guestproto.Spawn{ID: "big", Command: []string{"yes", "10000000"}})
	sum := sha256.New()
	if status, err := drain(big, sum, io.Discard); err != nil || status != 0 {
		t.Fatalf("10 MB beside a stuck stream: %d, %v", status, err)
	}
	if want := sha256.Sum256(bytes.Repeat([]byte("y\n"), 5_000_000)); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("10 MB came out different")
	}
	if _, err := stuck.Recv(); err != nil {
		t.Errorf("the stuck stream: %v", err)
	}
}

// The pipe drops again and again while data flows both ways: every byte arrives
// once, in order.
func TestReconnects(t *testing.T) {
	for _, c := range []struct {
		name     string
		coalesce bool
		lose     func([]byte) []byte
	}{
		{name: "guest notices"},
		{name: "guest does not notice", coalesce: true},
		{name: "bytes are lost", lose: func(b []byte) []byte { return b[:rand.IntN(len(b)+1)] }},
		// What a disconnect loses is the end of what was under way, as with QEMU's queue.
		// A hole before bytes that arrive would need a checksum, which yamux has not.
		{name: "lost and not noticed", coalesce: true, lose: func(b []byte) []byte { return b[:rand.IntN(len(b)+1)] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, guesttest.Options{})
			r.pipe.Coalesce, r.pipe.Lose = c.coalesce, c.lose
			l := r.open(t)
			a := start(t, l, guestproto.Spawn{ID: "cat", Command: []string{"cat"}, Stdin: true})
			in := make([]byte, 8<<20)
			for i := range in {
				in[i] = byte(rand.Uint32())
			}
			sent := make(chan error)
			go func() { sent <- send(a, in) }()
			var out bytes.Buffer
			next := 200_000
			status, err := drain(a, writerFunc(func(p []byte) (int, error) {
				if out.Len() > next {
					next += 200_000
					r.cut()
				}
				return out.Write(p)
			}), io.Discard)
			if sendErr := <-sent; err != nil || sendErr != nil || status != 0 || !bytes.Equal(out.Bytes(), in) {
				t.Errorf("%d bytes of %d, status %d, %v, %v", out.Len(), len(in), status, err, sendErr)
			}
			if n := r.dials.Load(); n < 30 {
				t.Errorf("only %d connections", n)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestIdleReconnects(t *testing.T) {
	r := newRig(t, guesttest.Options{})
	l := r.open(t)
	a := start(t, l, guestproto.Spawn{ID: "tty", Command: []string{"tty"}, Stdin: true, TTY: &frame.Winsize{Cols: 80, Rows: 24}})
	expect(t, a, "80x24\r\n")
	for i := range 30 {
		r.cut()
		r.pipe.Coalesce = i%2 == 0
		if out, _, _ := run(t, l, guestproto.ExecID(fmt.Sprint("exec-", i)), "echo", "x"); out != "x\n" {
			t.Fatalf("echo after reconnect %d: %q", i, out)
		}
		if err := a.Send(frame.Frame{Type: frame.Stdin, Payload: []byte("hi\n")}); err != nil {
			t.Fatal(err)
		}
		expect(t, a, "hi\r\n")
	}
}

// Another daemon comes: what it owns goes on where it was, the rest is killed.
func TestOwnership(t *testing.T) {
	rec := &guesttest.Record{}
	r := newRig(t, guesttest.Options{Record: rec})
	l := r.open(t)
	kept := start(t, l, guestproto.Spawn{ID: "kept", Command: []string{"cat"}, Stdin: true})
	if err := kept.Send(frame.Frame{Type: frame.Stdin, Payload: []byte("one\n")}); err != nil {
		t.Fatal(err)
	}
	expect(t, kept, "one\n")
	start(t, l, guestproto.Spawn{ID: "lost", Command: []string{"sleep", "1000"}})
	magic := l.Magic()
	if magic == r.magic {
		t.Error("the magic is that of the command line")
	}
	_ = l.Close()

	h := guestproto.Hello{MinVersion: 1, Version: 1, Owned: []guestproto.Owned{{Exec: "kept", Offset: 9}}}
	l, err := Open(t.Context(), testLog(t), r, magic, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if execs := l.Welcome().Execs; len(execs) != 1 || execs[0] != (guestproto.Exec{ID: "kept", Running: true, End: 9}) {
		t.Errorf("the guest has %+v", execs)
	}
	a, err := l.Attach(t.Context(), "kept", 9)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if _, err := l.Attach(t.Context(), "kept", 9); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a second client: %v", err)
	}
	if err := send(a, []byte("two\n")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if status, err := drain(a, &out, io.Discard); err != nil || status != 0 || out.String() != "two\n" {
		t.Errorf("%q, %d, %v", out.String(), status, err)
	}
	if n := len(rec.Identities()); n != 1 {
		t.Errorf("the identity was set %d times", n)
	}
	if n := len(rec.Thaws()); n < 2 {
		t.Errorf("thawed %d times in two sessions", n)
	}
}

// Calls on a paused guest end with their context; nothing is left hanging.
func TestPausedGuest(t *testing.T) {
	r := newRig(t, guesttest.Options{})
	l := r.open(t)
	a := start(t, l, guestproto.Spawn{ID: "cat", Command: []string{"cat"}, Stdin: true})
	b := start(t, l, guestproto.Spawn{ID: "other", Command: []string{"cat"}, Stdin: true})
	r.pipe.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Spawn(ctx, guestproto.Spawn{ID: "x", Command: []string{"true"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Spawn = %v", err)
	}
	if _, err := l.Attach(ctx, "x", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Attach = %v", err)
	}
	sent := make(chan error)
	go func() { sent <- send(a, make([]byte, 2<<20)) }()
	received := make(chan error)
	go func() { _, err := a.Recv(); received <- err }()
	select {
	case err := <-sent:
		t.Fatalf("2 MB went into a paused guest: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	_ = a.Close()
	if err := <-sent; !errors.Is(err, errDetached) {
		t.Errorf("Send after Close = %v", err)
	}
	if err := <-received; !errors.Is(err, errDetached) {
		t.Errorf("Recv after Close = %v", err)
	}
	r.pipe.Resume()
	if err := send(b, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if status, err := drain(b, &out, io.Discard); err != nil || status != 0 || out.String() != "hi" {
		t.Errorf("after the pause: %q, %d, %v", out.String(), status, err)
	}
}

func TestMachineEnds(t *testing.T) {
	r := newRig(t, guesttest.Options{})
	l := r.open(t)
	a := start(t, l, guestproto.Spawn{ID: "cat", Command: []string{"cat"}, Stdin: true})
	r.mu.Lock()
	r.err = fmt.Errorf("qemu: %w", vmm.ErrEnded)
	r.mu.Unlock()
	r.cut()
	if _, err := a.Recv(); !errors.Is(err, vmm.ErrEnded) || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Recv = %v", err)
	}
	if err := a.Send(frame.Frame{Type: frame.EOF}); err == nil {
		t.Error("Send to a machine that has ended")
	}
	if err := l.Spawn(t.Context(), guestproto.Spawn{ID: "x", Command: []string{"true"}}); !errors.Is(err, vmm.ErrEnded) {
		t.Errorf("Spawn = %v", err)
	}
}

func TestPowerOffAndLonelyGuest(t *testing.T) {
	off := make(chan struct{})
	r := newRig(t, guesttest.Options{PowerOff: func() { close(off) }})
	h := hello()
	h.LonelyOffMS = 30
	l, err := Open(t.Context(), testLog(t), r, r.magic, h)
	if err != nil {
		t.Fatal(err)
	}
	start(t, l, guestproto.Spawn{ID: "s", Command: []string{"sleep", "1000"}})
	select {
	case <-off:
		t.Fatal("off with a host")
	case <-time.After(60 * time.Millisecond):
	}
	_ = l.Close()
	<-off

	off = make(chan struct{})
	r = newRig(t, guesttest.Options{PowerOff: func() { close(off) }})
	l = r.open(t)
	start(t, l, guestproto.Spawn{ID: "s", Command: []string{"trap"}})
	if err := l.PowerOff(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	<-off
}

func TestDial(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		b, _ := io.ReadAll(c) // until the half-close
		_, _ = c.Write(append([]byte("got "), b...))
	}()
	c, err := l.Dial(t.Context(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "got hi" {
		t.Errorf("read %q, %v", b, err)
	}
	if _, err := l.Dial(t.Context(), "127.0.0.1:1"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("dial of nobody = %v", err)
	}
}
