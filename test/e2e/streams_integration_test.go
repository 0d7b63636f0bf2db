//go:build integration

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const mb = 1 << 20

// random is a stream of n bytes that is the same for every test with the seed.
func random(n int64, seed byte) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}

// TestEcho sends random bytes through cat and expects them back unchanged, with
// stderr and status beside them.
func TestEcho(t *testing.T) {
	h := newHost(t)
	n := int64(stress(20, 100) * mb)
	want := sha256.New()
	if _, err := io.Copy(want, random(n, 1)); err != nil {
		t.Fatal(err)
	}
	cmd := h.aegis("run", "-i", "--", "sh", "-c", "cat; echo e >&2; exit 7")
	got, stderr := sha256.New(), &bytes.Buffer{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = random(n, 1), got, stderr
	begin := time.Now()
	_ = cmd.Run() // the status is what is looked at
	if status := cmd.ProcessState.ExitCode(); status != 7 || stderr.String() != "e\n" {
		t.Errorf("status %d, stderr %q; want 7, e", status, stderr)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("the bytes that came back are not those that went in")
	}
	t.Logf("%d MB there and back in %v", n/mb, time.Since(begin))
}

// periodic checks that everything written to it is text over and over.
type periodic struct {
	text string
	n    int64
	bad  error
}

func (p *periodic) Write(b []byte) (int, error) {
	for i := 0; i < len(b) && p.bad == nil; i++ {
		if want := p.text[(p.n+int64(i))%int64(len(p.text))]; b[i] != want {
			p.bad = fmt.Errorf("byte %d is %q, want %q", p.n+int64(i), b[i], want)
		}
	}
	p.n += int64(len(b))
	return len(b), p.bad
}

// TestFlood reads a stream that the guest writes as fast as it can: every byte
// once, and the daemon's memory flat.
func TestFlood(t *testing.T) {
	h := newHost(t)
	h.run("true")
	before := h.daemonMemory()
	n := int64(stress(40, 200) * mb)
	cmd := h.aegis("run", "--", "sh", "-c", fmt.Sprintf("yes | head -c %d", n))
	got := &periodic{text: "y\n"}
	cmd.Stdout = got
	begin := time.Now()
	if err := cmd.Run(); err != nil || got.bad != nil || got.n != n {
		t.Errorf("%v, %v, %d bytes, want %d", err, got.bad, got.n, n)
	}
	grown := h.daemonMemory() - before
	if grown > 48*mb {
		t.Errorf("the daemon grew by %d MB", grown/mb)
	}
	t.Logf("%d MB in %v; the daemon grew by %.1f MB", n/mb, time.Since(begin), float64(grown)/mb)
}

func TestLongLine(t *testing.T) {
	h := newHost(t)
	out := h.run("python3", "-c", "print('x' * 10_000_000)")
	if len(out) != 10_000_001 || strings.Trim(out, "x") != "\n" {
		t.Errorf("%d bytes came of a line of 10 MB", len(out))
	}
}

// TestStalledReader stops reading a program's output: the program stops, the
// daemon does not grow, and others go on. Then it reads on and misses nothing.
func TestStalledReader(t *testing.T) {
	h := newHost(t)
	h.run("true")
	before := h.daemonMemory()
	n := int64(32 * mb)
	cmd := h.aegis("run", "--", "sh", "-c", fmt.Sprintf("yes | head -c %d", n))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got := &periodic{text: "y\n"}
	if _, err := io.CopyN(got, out, 1*mb); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if s := h.run("echo", "others go on"); s != "others go on\n" {
			t.Errorf("stdout = %q", s)
		}
	}
	if grown := h.daemonMemory() - before; grown > 32*mb {
		t.Errorf("the daemon grew by %d MB while nobody read", grown/mb)
	}
	if _, err := io.Copy(got, out); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || got.bad != nil || got.n != n {
		t.Errorf("%v, %v, %d bytes, want %d", err, got.bad, got.n, n)
	}
}

// TestClientGoes ends the client in each of the ways a client ends; nothing of its
// instance may be left soon after.
func TestClientGoes(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		sig    syscall.Signal
		status int // -1 is death by the signal
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}, {syscall.SIGKILL, -1}} {
		t.Run(c.sig.String(), func(t *testing.T) {
			cmd := h.aegis("run", "--", "sh", "-c", "echo ready; sleep 600")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(c.sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the status is what is looked at
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status = %d, want %d", got, c.status)
			}
			h.eventuallyIdle(t)
		})
	}
	t.Run("while it boots", func(t *testing.T) {
		cmd := h.aegis("run", "--", "true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); len(h.instances()) == 0 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 130 {
			t.Errorf("status = %d, want 130", got)
		}
		h.eventuallyIdle(t)
	})
	t.Run("broken pipe", func(t *testing.T) {
		cmd := h.aegis("run", "--", "yes")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr := &bytes.Buffer{}
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		_ = out.Close()
		_ = cmd.Wait() // a status of its own or SIGPIPE: as other tools do
		if stderr.Len() > 0 {
			t.Errorf("a broken pipe is nothing to talk about: %s", stderr)
		}
		h.eventuallyIdle(t)
	})
}

// eventuallyIdle waits until the daemon runs nothing and keeps nothing.
func (h *host) eventuallyIdle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		f := h.footprint()
		if f.instances == 0 && f.processes == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v, %v", h.instances(), h.processes())
		}
	}
}

// TestManyRuns runs many VMs, eight at a time: each has its own output and status,
// and the host is afterwards as it was.
func TestManyRuns(t *testing.T) {
	h := newHost(t)
	h.run("true")
	before := h.settled()
	total, begin := stress(40, 200), time.Now()
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range total {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r := h.try("run", "--", "sh", "-c", fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", i, i, i%100))
			if r.status != i%100 || r.stdout != fmt.Sprintf("out %d\n", i) || r.stderr != fmt.Sprintf("err %d\n", i) {
				t.Errorf("run %d: status %d, stdout %q, stderr %q", i, r.status, r.stdout, r.stderr)
			}
		})
	}
	wg.Wait()
	took, after := time.Since(begin), h.settled()
	t.Logf("%d runs, 8 at a time, in %v; footprint %+v", total, took, after)
	if after != before {
		t.Errorf("footprint %+v, before %+v\n%v\n%v\n%v", after, before, h.processes(), h.instances(), h.files())
	}
}
