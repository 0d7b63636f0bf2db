//go:build integration

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// box is an instance that lives as long as the test.
func (h *host) box() {
	h.t.Helper()
	const name = "box"
	c := client.New(filepath.Join(h.home, "aegisd.sock"))
	if _, _, err := c.Create(h.t.Context(), api.CreateRequest{Handle: name, Command: []string{"sleep", "infinity"}}); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if _, err := c.Delete(context.WithoutCancel(h.t.Context()), name); err != nil {
			h.t.Error(err)
		}
	})
	if _, err := c.Start(h.t.Context(), name); err != nil {
		h.t.Fatal(err)
	}
}

// in runs a shell script in an instance and returns its output.
func (h *host) in(name, script string) string {
	h.t.Helper()
	c := client.New(filepath.Join(h.home, "aegisd.sock"))
	x, err := c.Exec(h.t.Context(), name, api.ExecRequest{Command: []string{"sh", "-c", script}})
	if err != nil {
		h.t.Fatal(err)
	}
	var out, errs strings.Builder
	status, err := x.Stream(h.t.Context(), client.Streams{Stdout: &out, Stderr: &errs})
	if err != nil || status != 0 {
		h.t.Fatalf("%s: status %d, %v\n%s%s", script, status, err, out.String(), errs.String())
	}
	return out.String()
}

// cp copies and fails the test unless that succeeds.
func (h *host) cp(args ...string) result {
	h.t.Helper()
	r := h.try(append([]string{"cp"}, args...)...)
	if r.status != 0 {
		h.t.Fatalf("aegis cp %q: status %d\n%s", args, r.status, r.stderr)
	}
	h.t.Logf("aegis cp %q took %v", args, r.took)
	return r
}

func write(t *testing.T, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	for _, err := range []error{os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600), os.Chmod(path, mode)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// listing describes a tree the same way on both sides: mode, type, size, links,
// modification time and target of each file, and a checksum over all contents.
const listing = `cd "$1" && find . -printf '%P|%y|%m|%s|%n|%l|%T@\n' | sed 's/|d|\([0-7]*\)|[0-9]*|[0-9]*|/|d|\1|||/' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum`

func (h *host) listed(name, dir string) string {
	h.t.Helper()
	return h.in(name, strings.ReplaceAll(listing, "$1", dir))
}

func listedHere(t *testing.T, h *host, dir string) string {
	t.Helper()
	cmd := h.aegis()
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", listing, "sh", dir}
	r := finish(t, cmd)
	if r.status != 0 {
		t.Fatal(r.stderr)
	}
	return r.stdout
}

func TestCopyTree(t *testing.T) {
	h := newHost(t)
	h.box()
	dir := t.TempDir()
	src := filepath.Join(dir, "tree")
	files := stress(2_000, 10_000)
	random := rand.NewChaCha8([32]byte{1})
	for i := range files {
		data := make([]byte, 100+i%4000)
		_, _ = random.Read(data)
		write(t, filepath.Join(src, strconv.Itoa(i%50), strconv.Itoa(i)), data, fs.FileMode(0o600+i%0o200))
	}
	for _, err := range []error{
		os.Chmod(filepath.Join(src, "0/0"), 0o755|fs.ModeSetuid),
		os.Link(filepath.Join(src, "0/0"), filepath.Join(src, "1/hard")),
		os.Symlink("../0/0", filepath.Join(src, "2/soft")),
		os.Symlink("/nowhere/at all", filepath.Join(src, "2/dangling")),
		os.MkdirAll(filepath.Join(src, "empty"), 0o700),
		os.Chmod(filepath.Join(src, "empty"), 0o777|fs.ModeSticky),
		os.Chmod(filepath.Join(src, "3"), 0o500),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := listedHere(t, h, src)

	h.cp(src, "box:/root/")
	if got := h.listed("box", "/root/tree"); got != want {
		t.Errorf("in the VM: %s", firstDifference(got, want))
	}
	if owner := h.in("box", `find /root/tree ! -uid 0 | wc -l`); owner != "0\n" {
		t.Errorf("%s files do not belong to root", owner)
	}
	back := filepath.Join(dir, "back")
	h.cp("-a", "box:/root/tree", back)
	if got := listedHere(t, h, back); got != want {
		t.Errorf("back here: %s", firstDifference(got, want))
	}
	h.cp("box:/root/tree/0/0", back+"/plain")
	if fi, err := os.Stat(back + "/plain"); err != nil || fi.Mode() != 0o755 {
		t.Errorf("without -a: %v, %v; want no set-user-ID bit", fi.Mode(), err)
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("%d lines, want %d; the first other one is %q, want %q", len(g), len(w), g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// TestCopyLarge copies a file that is larger than the memory that the daemon and the
// guest's PID 1 may take for it.
func TestCopyLarge(t *testing.T) {
	h := newHost(t)
	h.box()
	path, size := filepath.Join(t.TempDir(), "large"), int64(stress(100<<20, 1<<30))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), rand.NewChaCha8([32]byte{2}), size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString(sum.Sum(nil))
	daemon, guest := h.daemonMemory(), h.guestMemory()

	r := h.cp(path, "box:/root/large")
	t.Logf("in: %.0f MB/s", float64(size)/1e6/r.took.Seconds())
	if got := strings.Fields(h.in("box", "sha256sum /root/large"))[0]; got != want {
		t.Errorf("in the VM the file has sum %s, want %s", got, want)
	}
	r = h.cp("box:/root/large", path+".back")
	t.Logf("out: %.0f MB/s", float64(size)/1e6/r.took.Seconds())
	if got := fileSum(t, path+".back"); got != want {
		t.Errorf("back here the file has sum %s, want %s", got, want)
	}
	for name, grown := range map[string]int64{"the daemon": h.daemonMemory() - daemon, "PID 1": h.guestMemory() - guest} {
		t.Logf("%s grew by %d KB", name, grown>>10)
		if grown > 40<<20 {
			t.Errorf("%s grew by %d MB", name, grown>>20)
		}
	}
}

// guestMemory returns the resident memory of PID 1 in the VM.
func (h *host) guestMemory() int64 {
	h.t.Helper()
	kb, err := strconv.ParseInt(strings.TrimSpace(h.in("box", `awk '/VmHWM/{print $2}' /proc/1/status`)), 10, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	return kb << 10
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// evil makes a tree that means no good.
const evil = `
import os, socket
os.makedirs("/evil/deep"); os.chdir("/evil")
os.symlink("/etc", "etc"); os.symlink("../..", "up"); os.symlink("/", "root"); os.symlink("loop", "loop")
os.symlink("../victim", "deep/victim")
open("a\nb\x1b[31m", "w").close(); open(b"\xff\xfe", "w").close()
open("-rf", "w").close(); open("x" * 255, "w").close()
os.mknod("null", 0o20666, os.makedev(1, 3)); os.mknod("disk", 0o60666, os.makedev(254, 0)); os.mkfifo("pipe")
s = socket.socket(socket.AF_UNIX); s.bind("socket")
open("su", "w").close(); os.chown("su", 1234, 4321); os.chmod("su", 0o6777)
os.mkdir("sgid"); os.chmod("sgid", 0o7777)
os.link("su", "su2"); open("sparse", "w").truncate(1 << 20)
os.mkdir("closed"); open("closed/x", "w").close(); os.chmod("closed", 0o711)
d = "/evil/deep"
for i in range(200):
    d += "/d"; os.mkdir(d)
`

func TestCopyHostile(t *testing.T) {
	h := newHost(t)
	h.box()
	world := t.TempDir()
	victim, target := filepath.Join(world, "victim"), filepath.Join(world, "target")
	write(t, victim, []byte("untouched"), 0o600)
	h.in("box", "python3 -c '"+strings.ReplaceAll(evil, "'", `'"'"'`)+"'")
	before, err := os.Stat("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}

	r := h.cp("box:/evil", target)
	for _, what := range []string{`"evil/null" left out: it is a device`, `"evil/pipe" left out`, `"evil/socket" left out`} {
		if !strings.Contains(r.stderr, what) {
			t.Errorf("stderr does not say %q:\n%s", what, r.stderr)
		}
	}
	// The second time every link of the tree stands in the way of what comes.
	h.cp("box:/evil", world+"/again")
	h.cp("box:/evil/.", target)
	h.cp("box:/evil", target)

	found := 0
	err = filepath.WalkDir(target, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		found++
		if fi.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%q is %v", path, fi.Mode())
		}
		if uid := int(fi.Sys().(*syscall.Stat_t).Uid); uid != os.Getuid() {
			t.Errorf("%q belongs to %d", path, uid)
		}
		return nil
	})
	if err != nil || found < 200 {
		t.Errorf("%d files, %v", found, err)
	}
	names, err := os.ReadDir(world)
	if err != nil || len(names) != 3 {
		t.Errorf("beside the target: %v, %v", names, err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "untouched" {
		t.Errorf("the victim holds %q, %v", b, err)
	}
	if after, err := os.Stat("/etc/passwd"); err != nil || after.ModTime() != before.ModTime() {
		t.Errorf("/etc/passwd was written: %v", err)
	}
}

func TestCopyErrors(t *testing.T) {
	h := newHost(t)
	h.box()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), []byte("x"), 0o644)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"nothing there", []string{"box:/no/such", dir}, 1, `"/no/such": no such file`},
		{"nothing here", []string{in("none"), "box:/tmp"}, 1, "no such file"},
		{"no such instance", []string{in("f"), "nobox:/tmp"}, 1, "nobox"},
		{"missing folder there", []string{in("f"), "box:/tmp/none/"}, 2, "does not exist"},
		{"missing parent there", []string{in("f"), "box:/none/f"}, 1, "no such file"},
		{"missing folder here", []string{"box:/etc/hostname", in("none") + "/"}, 1, "does not exist"},
		{"onto a device", []string{in("f"), "box:/dev/null"}, 2, "is a device"},
		{"from a device", []string{"box:/dev/zero", dir}, 2, "is a device"},
		{"both here", []string{in("f"), in("g")}, 2, "box:"},
		{"both there", []string{"box:/a", "box:/b"}, 2, "aegis cp box:/a - |"},
		{"no path", []string{in("f"), "box:"}, 2, "no path"},
		{"one argument", []string{in("f")}, 2, "source"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := h.try(append([]string{"cp"}, c.args...)...)
			if r.status != c.status || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("status %d, stderr %q; want %d, %q", r.status, r.stderr, c.status, c.stderr)
			}
		})
	}
	// An error in the middle: the guest's disk is full.
	h.in("box", "mkdir /small && mount -t tmpfs -o size=4m none /small")
	write(t, in("large"), make([]byte, 40<<20), 0o644)
	r := h.try("cp", in("large"), "box:/small/")
	if r.status != 1 || !strings.Contains(r.stderr, "no space left") {
		t.Errorf("status %d, %q", r.status, r.stderr)
	}
	if out := h.in("box", "ls -A /small"); out != "" {
		t.Errorf("left of it: %q", out)
	}
}

// TestCopyStreams copies archives through stdin and stdout.
func TestCopyStreams(t *testing.T) {
	h := newHost(t)
	h.box()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a/b"), []byte("through tar"), 0o644)
	tar := h.aegis()
	tar.Path, tar.Args = "/bin/sh", []string{"sh", "-ec", `
		tar c -C "$1" a | "$2" cp - box:/srv
		"$2" cp box:/srv/a - | tar x -O a/b
		if yes noise | head -c 4096 | "$2" cp - box:/srv; then exit 1; fi
		"$2" cp box:/proc/self/status - | tar x -O status | grep -q VmRSS
	`, "sh", dir, filepath.Join(h.bin, "aegis")}
	r := finish(t, tar)
	if r.status != 0 || r.stdout != "through tar" || !strings.Contains(r.stderr, "not a tar archive") {
		t.Errorf("status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
}

// TestCopyWakes: a copy wakes a paused instance, holds it awake, and one that is
// given up leaves nothing behind a final name.
func TestCopyWakes(t *testing.T) {
	h := newHost(t)
	h.box()
	c := client.New(filepath.Join(h.home, "aegisd.sock"))
	if _, err := c.Pause(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	h.cp("box:/etc/hostname", t.TempDir())

	r, w := io.Pipe()
	cmd := h.aegis("cp", "-", "box:/srv")
	cmd.Stdin = r
	done := make(chan result, 1)
	go func() { done <- finish(t, cmd) }()
	header := "half\x00" + strings.Repeat("\x00", 95) + "0000644\x000000000\x000000000\x0000100000000\x0000000000000\x00"
	sum := 8 * int(0x20)
	for _, b := range []byte(header + "0") {
		sum += int(b)
	}
	header += fmt.Sprintf("%06o\x00 0", sum)
	if _, err := io.WriteString(w, header+strings.Repeat("\x00", 512-len(header))+strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	held := func() bool {
		info, err := c.Info(t.Context(), "box")
		if err != nil {
			t.Fatal(err)
		}
		for _, hold := range info.Holds {
			if hold.Owner == "cp" {
				return true
			}
		}
		return false
	}
	within(t, "the copy's hold", held)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	<-done
	within(t, "the end of the copy's hold", func() bool { return !held() })
	if out := h.in("box", "ls -A /srv"); out != "" {
		t.Errorf("left of it: %q", out)
	}
}

// within waits until something is true.
func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}
