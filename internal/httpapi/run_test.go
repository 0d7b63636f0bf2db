package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// cat copies its input to stdout, says e on stderr and exits 7.
func catMain(p *program) {
	for {
		f, ok := p.read()
		switch {
		case !ok:
			return
		case f.Type == frame.Stdin:
			if !p.print(frame.Stdout, f.Payload) {
				return
			}
		case f.Type == frame.EOF:
			p.print(frame.Stderr, []byte("e\n"))
			p.exit(7)
			return
		}
	}
}

// forever waits for its end.
func forever(p *program) { <-p.dead }

func run(t *testing.T, c *client.Client) *client.Attach {
	t.Helper()
	a, err := c.Run(t.Context(), api.RunRequest{Command: []string{"x"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRunEcho(t *testing.T) {
	r := &stubRunner{main: catMain}
	c, _, _ := serve(t, r)
	const n = 20 << 20
	want := sha256.New()
	_, _ = io.Copy(want, io.LimitReader(rand.NewChaCha8([32]byte{1}), n))
	got, stderr := sha256.New(), &bytes.Buffer{}
	a := run(t, c)
	if a.Instance() != "inst-0" {
		t.Errorf("instance = %q", a.Instance())
	}
	status, err := a.Stream(t.Context(), client.Streams{
		Stdin: io.LimitReader(rand.NewChaCha8([32]byte{1}), n), Stdout: got, Stderr: stderr,
	})
	if status != 7 || err != nil || stderr.String() != "e\n" || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("status %d, %v, stderr %q", status, err, stderr)
	}
	if r.count() != 0 {
		t.Error("the run was there when its status arrived")
	}
}

func TestResizeAndSignal(t *testing.T) {
	c, _, _ := serve(t, &stubRunner{main: func(p *program) {
		for {
			f, ok := p.read()
			if !ok || f.Type == frame.EOF {
				p.exit(0)
				return
			}
			p.print(frame.Stdout, fmt.Appendf(nil, "%d %v\n", f.Type, f.Payload))
		}
	}})
	a := run(t, c)
	if err := errors.Join(a.Resize(api.Winsize{Cols: 258, Rows: 3}), a.Signal(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := a.Stream(t.Context(), client.Streams{Stdin: strings.NewReader(""), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if want := "3 [1 2 0 3]\n4 [15]\n"; out.String() != want {
		t.Errorf("the program got %q, want %q", out.String(), want)
	}
}

func TestBootFails(t *testing.T) {
	c, _, _ := serve(t, &stubRunner{boot: func(context.Context, instance.Spec) error {
		return fmt.Errorf("start: %w", fault.New(fault.NotFound, "nope: not found").By(fault.Program).WithExit(127).WithHint("look"))
	}})
	_, err := c.Run(t.Context(), api.RunRequest{Command: []string{"nope"}})
	wantFault(t, err, fault.NotFound, "nope: not found")
	if fault.ExitOf(err) != 127 || fault.BlameOf(err) != fault.Program || fault.HintOf(err) != "look" {
		t.Errorf("exit, blame or hint lost: %+v", err)
	}
}

func TestMachineDies(t *testing.T) {
	c, _, _ := serve(t, &stubRunner{main: func(p *program) {
		p.print(frame.Stdout, []byte("before"))
		p.die(fault.New(fault.Unavailable, "the VM's kernel stopped").By(fault.Guest).WithHint("more memory"))
	}})
	var out bytes.Buffer
	_, err := run(t, c).Stream(t.Context(), client.Streams{Stdout: &out})
	wantFault(t, err, fault.Unavailable, "the VM's kernel stopped")
	if fault.BlameOf(err) != fault.Guest || fault.HintOf(err) != "more memory" || out.String() != "before" {
		t.Errorf("%+v, stdout %q", err, out.String())
	}
}

// TestClientGoes ends clients in every way; the run ends each time.
func TestClientGoes(t *testing.T) {
	booting := make(chan struct{}, 1)
	r := &stubRunner{main: forever}
	c, _, socket := serve(t, r)
	gone := errors.New("had enough")
	t.Run("canceled", func(t *testing.T) {
		a := run(t, c)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(gone) })
		if _, err := a.Stream(ctx, client.Streams{}); !errors.Is(err, gone) {
			t.Errorf("err = %v", err)
		}
		if r.count() != 0 {
			t.Error("Stream returned before the run had ended")
		}
	})
	t.Run("closed", func(t *testing.T) {
		if err := run(t, c).Close(); err != nil || r.count() != 0 {
			t.Errorf("%v, %d runs left", err, r.count())
		}
	})
	t.Run("killed while the program reads nothing", func(t *testing.T) {
		conn := upgradeByHand(t, socket)
		full := frame.Append(nil, frame.Stdin, make([]byte, 1<<20))
		_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		for {
			if _, err := conn.Write(full); err != nil {
				break // all buffers are full
			}
		}
		if r.count() != 1 {
			t.Fatalf("%d runs", r.count())
		}
		_ = conn.Close()
		eventually(t, func() bool { return r.count() == 0 })
	})
	t.Run("booting", func(t *testing.T) {
		cleared := make(chan error, 1)
		r.boot = func(ctx context.Context, _ instance.Spec) error {
			booting <- struct{}{}
			<-ctx.Done()
			cleared <- context.Cause(ctx)
			return context.Cause(ctx)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-booting
			cancel(gone)
		}()
		if _, err := c.Run(ctx, api.RunRequest{Command: []string{"x"}}); !errors.Is(err, gone) {
			t.Errorf("err = %v", err)
		}
		select {
		case err := <-cleared:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the boot was called off by %v", err)
			}
		default:
			t.Error("Run returned before the boot had been called off")
		}
	})
}

// TestStalledClient stops reading: the program stops, and Ctrl-C ends it all the
// same.
func TestStalledClient(t *testing.T) {
	r := &stubRunner{main: func(p *program) {
		for p.print(frame.Stdout, make([]byte, 64<<10)) {
		}
	}}
	c, _, _ := serve(t, r)
	a := run(t, c)
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("had enough")
	ended := make(chan error, 1)
	go func() {
		_, err := a.Stream(ctx, client.Streams{Stdout: writer})
		ended <- err
	}()
	if _, err := io.ReadFull(reader, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	cancel(gone)
	eventually(t, func() bool { return r.count() == 0 })
	_ = reader.Close() // lets the Write go that nobody read
	if err := <-ended; !errors.Is(err, gone) {
		t.Errorf("err = %v", err)
	}
}

func TestOutputFails(t *testing.T) {
	r := &stubRunner{main: func(p *program) {
		for p.print(frame.Stdout, []byte("y\n")) {
		}
	}}
	c, _, _ := serve(t, r)
	reader, writer := io.Pipe()
	_ = reader.CloseWithError(syscall.ENOSPC)
	_, err := run(t, c).Stream(t.Context(), client.Streams{Stdout: writer})
	out, ok := errors.AsType[*client.OutputError](err)
	if !ok || out.Stream != "stdout" || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("err = %v", err)
	}
	if r.count() != 0 {
		t.Error("Stream returned before the run had ended")
	}
}

func TestInputFails(t *testing.T) {
	r := &stubRunner{main: forever}
	c, _, _ := serve(t, r)
	reader, writer := io.Pipe()
	_ = writer.CloseWithError(syscall.EIO)
	if _, err := run(t, c).Stream(t.Context(), client.Streams{Stdin: reader}); !errors.Is(err, syscall.EIO) {
		t.Errorf("err = %v", err)
	}
}

// TestDaemonEnds closes the server while the core ends the runs, as the daemon does.
func TestDaemonEnds(t *testing.T) {
	started := make(chan *program, 1)
	r := &stubRunner{main: func(p *program) {
		started <- p
		<-p.dead
	}}
	c, s, _ := serve(t, r)
	a := run(t, c)
	p := <-started
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	p.die(fault.New(fault.Unavailable, "aegisd is shutting down").WithHint("aegis up"))
	_, err := a.Stream(t.Context(), client.Streams{})
	wantFault(t, err, fault.Unavailable, "aegisd is shutting down")
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("Status of a closed server = %v", err)
	}
}

// TestDaemonEndsWithStalledClient has a client that never reads; Hurry lets it go.
func TestDaemonEndsWithStalledClient(t *testing.T) {
	started := make(chan *program, 1)
	r := &stubRunner{main: func(p *program) {
		started <- p
		for p.print(frame.Stdout, make([]byte, 64<<10)) {
		}
	}}
	_, s, socket := serveConfig(t, r, Config{Limits: Limits{Farewell: 50 * time.Millisecond}}, os.Getuid())
	upgradeByHand(t, socket)
	p := <-started
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	p.die(errDead)
	s.Hurry()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the server does not end")
	}
}

func TestBadFrames(t *testing.T) {
	r := &stubRunner{main: forever}
	_, _, socket := serve(t, r)
	for name, raw := range map[string][]byte{
		"output":        frame.Append(nil, frame.Stdout, []byte("x")),
		"exit":          frame.Append(nil, frame.Exit, frame.EncodeStatus(0)),
		"ack":           frame.Append(nil, frame.Ack, frame.EncodeOffset(0)),
		"unknown":       frame.Append(nil, 77, nil),
		"short resize":  frame.Append(nil, frame.Resize, []byte{1}),
		"signal 0":      frame.Append(nil, frame.Signal, []byte{0}),
		"signal 65":     frame.Append(nil, frame.Signal, []byte{65}),
		"long signal":   frame.Append(nil, frame.Signal, []byte{1, 2}),
		"EOF with data": frame.Append(nil, frame.EOF, []byte("x")),
		"too large":     {0, 0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			conn := upgradeByHand(t, socket)
			if _, err := conn.Write(raw); err != nil {
				t.Fatal(err)
			}
			f, err := frame.NewReader(conn).Next()
			if err != nil || f.Type != frame.Error || !bytes.Contains(f.Payload, []byte(`"code":"invalid"`)) {
				t.Errorf("answer %d %s, %v", f.Type, f.Payload, err)
			}
		})
	}
}

// upgradeByHand starts a run over a bare connection.
func upgradeByHand(t *testing.T, socket string) interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
} {
	t.Helper()
	conn := dial(t, socket)
	body := `{"command":["x"],"stdin":true}`
	_, err := fmt.Fprintf(conn, "POST /v1/run HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: %d\r\n\r\n%s",
		api.AttachProtocol, len(body), body)
	if err != nil {
		t.Fatal(err)
	}
	// Byte by byte, to read not a byte too much.
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b...) {
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		t.Fatalf("answer %q", head)
	}
	return conn
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}
