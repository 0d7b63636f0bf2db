//go:build integration

package guestlink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func TestVM(t *testing.T) {
	v := startVM(t)
	t.Run("userland", v.userland)
	t.Run("errors", v.spawnErrors)
	t.Run("users", v.users)
	t.Run("terminal", v.terminal)
	t.Run("many", v.many)
	t.Run("leftovers", v.leftovers)
	t.Run("stdin", v.stdin)
	t.Run("reconnects", v.reconnects)
	t.Run("freeze", v.freeze)
	t.Run("ring", v.ring)
	t.Run("oom", v.oom)
	t.Run("speed", v.speed)
	t.Run("poweroff", v.powerOff)
}

func (v *vm) userland(t *testing.T) {
	for _, c := range []struct {
		script, want string
		status       int32
	}{
		{"exit 7", "", 7},
		{"kill -9 $$", "", 137},
		{"echo out; echo err >&2", "out\nerr\n", 0},
		{"python3 -c 'print(1)'", "1\n", 0},
		{"bash -c 'echo $BASH_VERSION | cut -c1'", "5\n", 0},
		{"stat -c %a /tmp /dev/shm /var/tmp", "1777\n1777\n1777\n", 0},
		{"ls /proc/self/fd | wc -l", "4\n", 0},
		{"test -c /dev/pts/ptmx && echo yes", "yes\n", 0},
		{"echo hi | tee /dev/stderr", "hi\nhi\n", 0},
		{"hostname; cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id", "box\nbox\n0123456789abcdef0123456789abcdef\n2b1d2f0e-0000-4000-8000-000000000000\n", 0},
		{"getent hosts box", "127.0.1.1       box\n", 0},
		{"cat /etc/resolv.conf", "nameserver 192.168.127.1\n", 0},
		{"cat /sys/class/net/eth0/mtu; ip -4 -o addr show eth0 | grep -o 'inet [^ ]*'; ip route | grep -o 'default via [^ ]*'", "65520\ninet 192.168.127.2/24\ndefault via 192.168.127.1\n", 0},
		{"ping -c1 -W1 127.0.0.1 >/dev/null 2>&1 || python3 -c \"import socket; s=socket.socket(); s.bind(('127.0.0.1',0))\"; echo $?", "0\n", 0},
		{"cat /proc/self/cgroup", "0::/aegis/", 0},
		{"ps -o pid= -p 1; cat /proc/1/comm", "", 0},
		{"ulimit -n; umask", "65536\n0022\n", 0},
		{"df -BG / | tail -1 | awk '{print $2}'", "9G\n", 0},
		{"apt-get --version | head -1 | cut -d' ' -f1", "apt\n", 0},
		{"cat < /dev/null; read x; echo end", "end\n", 0},
		{"date +%Y", fmt.Sprintln(time.Now().Year()), 0},
		{"trap 'echo term; exit 3' TERM; kill $$; wait", "term\n", 3},
		{"pwd; echo $HOME $USER $PATH", "/\n/root root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", 0},
		{"mount | grep -c ' /newroot'", "0\n", 1},
	} {
		out, status := v.sh(t, c.script)
		if status != c.status || c.want != "" && !strings.HasPrefix(out, c.want) {
			t.Errorf("%s: %q, status %d; want %q, %d", c.script, out, status, c.want, c.status)
		}
	}
}

func (v *vm) spawnErrors(t *testing.T) {
	if out, status := v.sh(t, "printf '#!/no/such\n' > /tmp/bad; chmod +x /tmp/bad; echo x > /tmp/text; printf 'garbage' > /tmp/garbage; chmod +x /tmp/garbage"); status != 0 {
		t.Fatal(out)
	}
	for _, c := range []struct {
		req  guestproto.Spawn
		code guestproto.Code
	}{
		{guestproto.Spawn{Command: []string{"no-such-command"}}, guestproto.CodeNoCommand},
		{guestproto.Spawn{Command: []string{"/no/such"}}, guestproto.CodeNoCommand},
		{guestproto.Spawn{Command: []string{"/tmp/bad"}}, guestproto.CodeNoCommand},
		{guestproto.Spawn{Command: []string{"/tmp/text"}}, guestproto.CodeNotExecutable},
		{guestproto.Spawn{Command: []string{"/tmp/garbage"}}, guestproto.CodeNotExecutable},
		{guestproto.Spawn{Command: []string{"/tmp"}}, guestproto.CodeNotExecutable},
		{guestproto.Spawn{Command: []string{"true"}, User: "nobody-here"}, guestproto.CodeNotFound},
		{guestproto.Spawn{Command: []string{"true"}, Workdir: "/no/such"}, guestproto.CodeInvalid},
	} {
		c.req.ID = newExecID()
		err := v.link.Spawn(t.Context(), c.req)
		if said, ok := errors.AsType[*guestproto.Error](err); !ok || said.Code != c.code {
			t.Errorf("%v: %v, want %s", c.req.Command, err, c.code)
		}
	}
	if out, _ := v.sh(t, "ls -d /sys/fs/cgroup/aegis/exec-* | wc -l"); out != "1\n" {
		t.Errorf("%s cgroups, one runs", strings.TrimSpace(out))
	}
}

func as(user string) func(*guestproto.Spawn) { return func(r *guestproto.Spawn) { r.User = user } }

func (v *vm) users(t *testing.T) {
	for _, c := range []struct{ user, script, want string }{
		{"", "id -u; id -g; id -G", "0\n0\n0\n"},
		{"nobody", "id -un; echo $HOME", "nobody\n/nonexistent\n"},
		{"12345", "id -u; id -g; echo $HOME", "12345\n0\n/\n"},
		{"12345:54321", "id -u; id -g; id -G", "12345\n54321\n54321\n"},
		{"daemon:tty", "id -un; id -gn", "daemon\ntty\n"},
	} {
		if out, _ := v.sh(t, c.script, as(c.user)); out != c.want {
			t.Errorf("as %q: %q, want %q", c.user, out, c.want)
		}
	}
	if out, status := v.sh(t, "cp /usr/bin/id /tmp/suid; chmod 4755 /tmp/suid"); status != 0 {
		t.Fatal(out)
	}
	if out, _ := v.sh(t, "/tmp/suid -u", as("nobody")); out != "0\n" {
		t.Errorf("a setuid program ran as %q", out)
	}
}

func (v *vm) terminal(t *testing.T) {
	a := start(t, v.link, guestproto.Spawn{
		ID: newExecID(), Command: []string{"python3", "-q"}, Stdin: true, TTY: &frame.Winsize{Cols: 91, Rows: 33},
	})
	keys := func(s string) {
		if err := a.Send(frame.Frame{Type: frame.Stdin, Payload: []byte(s)}); err != nil {
			t.Fatal(err)
		}
	}
	see := seer(t, a)
	see(">>> ")
	keys("import os; print(os.get_terminal_size(), os.ttyname(0)[:9])\r")
	see("columns=91, lines=33) /dev/pts/")
	see(">>> ")
	if err := a.Send(frame.Frame{Type: frame.Resize, Payload: frame.Winsize{Cols: 50, Rows: 20}.Encode()}); err != nil {
		t.Fatal(err)
	}
	keys("print(os.get_terminal_size())\r")
	see("columns=50, lines=20)")
	see(">>> ")
	keys("import time; print('s'+'leeping'); time.sleep(1000)\r")
	see("sleeping")
	keys("\x03")
	see("KeyboardInterrupt")
	see(">>> ")
	keys("raise SystemExit(5)\r") // after Ctrl-D it would give 130, for the interrupt before
	if status, err := drain(a, io.Discard, io.Discard); status != 5 || err != nil {
		t.Errorf("python: %d, %v", status, err)
	}

	// cat closes its terminal before it exits: nothing may hang up on it.
	for range 20 {
		a = start(t, v.link, guestproto.Spawn{ID: newExecID(), Command: []string{"cat"}, Stdin: true, TTY: &frame.Winsize{Cols: 80, Rows: 24}})
		keys("hi\r")
		seer(t, a)("hi\r\nhi\r\n") // what the terminal echoes, then cat
		keys("\x04")
		if status, err := drain(a, io.Discard, io.Discard); status != 0 || err != nil {
			t.Errorf("cat after Ctrl-D: %d, %v", status, err)
		}
	}
}

// seer returns a function that receives until the output has had text, from behind
// the text before on.
func seer(t *testing.T, a instance.Attachment) func(text string) {
	t.Helper()
	var got []byte
	return func(text string) {
		t.Helper()
		for {
			if _, rest, ok := bytes.Cut(got, []byte(text)); ok {
				got = rest
				return
			}
			f, err := a.Recv()
			if err != nil {
				t.Fatalf("waiting for %q after %q: %v", text, got, err)
			}
			got = append(got, f.Payload...)
		}
	}
}

func (v *vm) many(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 64 {
		id := newExecID()
		wg.Go(func() {
			if err := v.link.Spawn(t.Context(), guestproto.Spawn{ID: id, Command: []string{"sh", "-c", "sleep 0.2; exit " + strconv.Itoa(i)}}); err != nil {
				t.Error(err)
				return
			}
			a, err := v.link.Attach(t.Context(), id, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Close() }()
			if status, err := drain(a, io.Discard, io.Discard); status != int32(i) || err != nil {
				t.Errorf("process %d: %d, %v", i, status, err)
			}
		})
	}
	wg.Wait()
}

// What a process leaves behind goes with it, and does not hold up its status.
func (v *vm) leftovers(t *testing.T) {
	begun := time.Now()
	out, status := v.sh(t, "setsid sleep 1000 & (while :; do echo x; sleep 0.05; done) & echo hi; exit 4")
	if status != 4 || !strings.Contains(out, "hi\n") {
		t.Errorf("%q, %d", out, status)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if out, _ := v.sh(t, "ps -e | grep -c sleep"); out != "0\n" {
		t.Errorf("%s sleeps are left", strings.TrimSpace(out))
	}
	if out, _ := v.sh(t, "(sleep 0.2; echo late) & echo early"); out != "early\nlate\n" {
		t.Errorf("a pipeline's end: %q", out)
	}
}

func (v *vm) stdin(t *testing.T) {
	a := start(t, v.link, guestproto.Spawn{ID: newExecID(), Command: []string{"sha256sum"}, Stdin: true})
	in := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	sent := make(chan error)
	go func() { sent <- send(a, in) }()
	var out bytes.Buffer
	if _, err := drain(a, &out, io.Discard); err != nil || !strings.HasPrefix(out.String(), fmt.Sprintf("%x", sum(in))) {
		t.Errorf("sha256sum of 16 MB: %q, %v", out.String(), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if out, status := v.sh(t, "head -c 1 >/dev/null; exit 3", func(r *guestproto.Spawn) { r.Stdin = true; r.Command = []string{"true"} }); status != 0 {
		t.Errorf("a program that ignores its input: %q, %d", out, status)
	}
}

// The session drops under load and idle; nothing is lost or repeated.
func (v *vm) reconnects(t *testing.T) {
	a := start(t, v.link, guestproto.Spawn{ID: newExecID(), Command: []string{"sh", "-c", "seq 1 1000000"}})
	h := newHasher()
	next := 0
	drops := 0
	status, err := drain(a, writerFunc(func(p []byte) (int, error) {
		if h.n >= next && drops < 20 {
			next += 300 << 10
			drops++
			v.link.drop()
		}
		return h.Write(p)
	}), io.Discard)
	var want bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintln(&want, i+1)
	}
	if err != nil || status != 0 || !bytes.Equal(h.Sum(nil), sumSlice(want.Bytes())) {
		t.Errorf("%d bytes, %d, %v; want %d", h.n, status, err, want.Len())
	}
	t.Logf("%d reconnects under load", drops)
	var times []time.Duration
	for range 30 {
		v.link.drop()
		begun := time.Now()
		if _, err := v.link.Stats(t.Context()); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(begun))
	}
	t.Logf("30 idle reconnects to the first answer: median %v", median(times))
	paused := start(t, v.link, guestproto.Spawn{ID: newExecID(), Command: []string{"cat"}, Stdin: true})
	for range 5 {
		if err := v.machine.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.link.drop()
		if err := paused.Send(frame.Frame{Type: frame.Stdin, Payload: []byte("x\n")}); err != nil {
			t.Fatal(err)
		}
		if err := v.machine.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, paused, "x\n")
	}
}

func (v *vm) freeze(t *testing.T) {
	id := newExecID()
	a := start(t, v.link, guestproto.Spawn{ID: id, Command: []string{"sh", "-c", "while :; do echo x; sleep 0.01; done"}})
	expect(t, a, "x\n")
	if stuck, err := v.link.Freeze(t.Context(), 2*time.Second); err != nil || len(stuck) > 0 {
		t.Fatalf("freeze: %v, %v", stuck, err)
	}
	stats, err := v.link.Stats(t.Context())
	if err != nil || stats.Processes == 0 || stats.MemoryTotal < 400<<20 || stats.DiskTotal < 7<<30 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	got := make(chan struct{})
	go func() { defer close(got); expectLines(a, 50) }()
	select {
	case <-got:
		t.Error("a frozen process went on")
	case <-time.After(time.Second):
	}
	if err := v.link.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-got
	if err := v.link.Kill(t.Context(), id, 9); err != nil {
		t.Error(err)
	}
	if status, err := drain(a, io.Discard, io.Discard); status != 137 || err != nil {
		t.Errorf("after the kill: %d, %v", status, err)
	}
}

func expectLines(a instance.Attachment, n int) {
	for n > 0 {
		f, err := a.Recv()
		if err != nil {
			return
		}
		n -= bytes.Count(f.Payload, []byte("\n"))
	}
}

// A process whose log has a ring goes on without a reader.
func (v *vm) ring(t *testing.T) {
	id := newExecID()
	if err := v.link.Spawn(t.Context(), guestproto.Spawn{
		ID: id, Command: []string{"sh", "-c", "yes | head -c 20000000; echo > /tmp/ring-done"}, Ring: 64 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	if out, _ := v.sh(t, "for i in $(seq 200); do test -e /tmp/ring-done && echo done && exit; sleep 0.1; done"); out != "done\n" {
		t.Errorf("the process did not end: %q", out)
	}
	a, err := v.link.Attach(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	h := newHasher()
	if status, err := drain(a, h, io.Discard); err != nil || status != 0 || h.n != 20_000_000 {
		t.Errorf("%d bytes, %d, %v", h.n, status, err)
	}
}

func (v *vm) oom(t *testing.T) {
	out, status := v.sh(t, "python3 -c 'x=bytearray(2<<30)'; echo status $?")
	if !strings.Contains(out, "status 137") && !strings.Contains(out, "MemoryError") || status != 0 {
		t.Errorf("2 GB in a VM of 512 MB: %q, %d", out, status)
	}
	if _, status := v.sh(t, "exit 5"); status != 5 {
		t.Errorf("after that: %d", status)
	}
}

func (v *vm) speed(t *testing.T) {
	var times []time.Duration
	for range 20 {
		begun := time.Now()
		if _, status := v.sh(t, "", func(r *guestproto.Spawn) { r.Command = []string{"/bin/true"} }); status != 0 {
			t.Fatal(status)
		}
		times = append(times, time.Since(begun))
	}
	t.Logf("exec true: median %v", median(times))
	times = nil
	for range 50 {
		begun := time.Now()
		if _, err := v.link.Stats(t.Context()); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(begun))
	}
	t.Logf("request round trip: median %v", median(times))
	a := start(t, v.link, guestproto.Spawn{ID: newExecID(), Command: []string{"sh", "-c", "yes | head -c 20M"}})
	begun := time.Now()
	h := newHasher()
	if _, err := drain(a, h, io.Discard); err != nil || h.n != 20<<20 {
		t.Errorf("%d bytes, %v", h.n, err)
	}
	t.Logf("yes | head -c 20M: %.0f MB/s", float64(h.n)/1e6/time.Since(begun).Seconds())
	a = start(t, v.link, guestproto.Spawn{ID: newExecID(), Command: []string{"sh", "-c", "cat > /dev/null"}, Stdin: true})
	begun = time.Now()
	sent := make(chan error)
	go func() { sent <- send(a, make([]byte, 20<<20)) }()
	if _, err := drain(a, io.Discard, io.Discard); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	t.Logf("20 MB to cat: %.0f MB/s", float64(20<<20)/1e6/time.Since(begun).Seconds())
}

func (v *vm) powerOff(t *testing.T) {
	a := start(t, v.link, guestproto.Spawn{ID: newExecID(), Command: []string{"sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"}})
	expect(t, a, "ready\n")
	begun := time.Now()
	if err := v.link.PowerOff(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	seer(t, a)("bye\n")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	exit, err := v.machine.Wait(ctx)
	if err != nil || exit.Reason != vmm.PoweredOff {
		t.Errorf("the machine's end: %v, %v", exit, err)
	}
	t.Logf("power off took %v", time.Since(begun))
	out, err := exec.Command("e2fsck", "-fn", filepath.Join(v.dir, "disk")).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("recovering journal")) {
		t.Errorf("the disk is not clean: %v\n%s", err, out)
	}
}

// A guest that nobody comes back to ends by itself; a root that cannot be mounted
// is told.
func TestVMLonely(t *testing.T) {
	spec, magic := recipe(t)
	m := boot(t, spec)
	h := hello()
	h.LonelyOffMS = 500
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	l, err := Open(ctx, testLog(t), m, magic, h)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if exit, err := m.Wait(ctx); err != nil || exit.Reason != vmm.PoweredOff {
		t.Errorf("the machine's end: %v, %v", exit, err)
	}
}

func TestVMWithoutRoot(t *testing.T) {
	spec, magic := recipe(t)
	broken := filepath.Join(spec.Dir, "broken")
	if err := os.WriteFile(broken, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Disks[0].Path = broken
	m := boot(t, spec)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	_, err := Open(ctx, testLog(t), m, magic, hello())
	if fault.BlameOf(err) != fault.Image {
		t.Errorf("Open = %v", err)
	}
	t.Log(err)
}
