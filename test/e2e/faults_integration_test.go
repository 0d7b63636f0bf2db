//go:build integration

package e2e

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests TestFault* break one thing each and look at what a person sees of it.
// What aegis says on stderr is in testdata/faults; go test -update rewrites that.

var update = flag.Bool("update", false, "rewrite the golden files")

// hang is how long a fault may take to end a run before it counts as one that does
// not end. It is no measure of speed: hosts of tests are busy.
const hang = 60 * time.Second

// sub returns the host for a subtest.
func (h *host) sub(t *testing.T) *host {
	t.Helper()
	sub := *h
	sub.t = t
	return &sub
}

// fails checks what a command that met a fault has left: its status, its words and
// nothing else.
func (h *host) fails(name string, status int, r result) {
	h.t.Helper()
	if r.status != status {
		h.t.Errorf("status %d, want %d", r.status, status)
	}
	if r.took > hang {
		h.t.Errorf("it took %v", r.took)
	}
	h.golden(name, r.stderr)
	h.clean()
}

// clean checks that no instance is left, in whatever form.
func (h *host) clean() {
	h.t.Helper()
	if left := h.instances(); len(left) > 0 {
		h.t.Errorf("folders left: %v", left)
	}
	if left := h.machines(); len(left) > 0 {
		h.t.Errorf("VMMs left: %v", left)
	}
}

// works checks that the host is none the worse for a fault that has passed.
func (h *host) works() {
	h.t.Helper()
	if out := h.run("echo", "well"); out != "well\n" {
		h.t.Errorf("the next run printed %q", out)
	}
}

func (h *host) golden(name, got string) {
	h.t.Helper()
	got = h.normal(got)
	path := filepath.Join("testdata", "faults", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o600)); err != nil {
			h.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	if got != string(want) {
		h.t.Errorf("stderr:\n%s\nwant:\n%s", got, want)
	}
}

// varying is what differs from run to run and host to host, and what stands for it.
var varying = []struct {
	form *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`inst-[0-9a-z]+`), "inst-ID"},
	{regexp.MustCompile(`(process|pid=) ?\d+`), "$1 PID"},
	{regexp.MustCompile(`\b\d+(\.\d+)? (B|KB|MB|GB|TB)\b`), "SIZE"},
	{regexp.MustCompile(`\b\d+ bytes`), "N bytes"},
	{regexp.MustCompile(`instead of \d+`), "instead of N"},
	{regexp.MustCompile(`the description says \d+`), "the description says N"},
	{regexp.MustCompile(`for (amd64|arm64)`), "for ARCH"},
	{regexp.MustCompile(`kernel/\d[^/ ]*`), "kernel/VERSION"},
	{regexp.MustCompile(`qemu-system-\w+`), "qemu-system-ARCH"},
	{regexp.MustCompile(`sudo \w+ .*`), "COMMAND THAT INSTALLS"},
	{regexp.MustCompile(`(?m)^  \| .*\n`), ""}, // of the daemon's log
}

func (h *host) normal(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, h.home, "HOME"), h.bin, "BIN")
	for _, v := range varying {
		s = v.form.ReplaceAllString(s, v.with)
	}
	return s
}

// replace gives path new content. Files of test homes are links to those of the one
// that set-up has filled: they are never written to.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// only returns the one file of the home that matches.
func (h *host) only(pattern string) string {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.home, pattern))
	if err != nil || len(found) != 1 {
		h.t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

// running is a command in the background.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *bufio.Reader
	errs  strings.Builder
	begun time.Time
}

// background starts a run. Its end is waited for with wait.
func (h *host) background(args ...string) *running {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*hang)
	h.t.Cleanup(cancel)
	r := &running{t: h.t, cmd: h.command(ctx, args...), begun: time.Now()}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	r.cmd.Stderr = &r.errs
	if err := r.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return r
}

// ready waits for the line that a program prints first.
func (r *running) ready() {
	r.t.Helper()
	if line, err := r.out.ReadString('\n'); err != nil || line != "ready\n" {
		_ = r.cmd.Wait() // its words tell more
		r.t.Fatalf("it printed %q, %v\n%s", line, err, r.errs.String())
	}
	r.begun = time.Now()
}

// wait returns how the command ended, and how long after ready.
func (r *running) wait() result {
	r.t.Helper()
	var out strings.Builder
	_, readErr := r.out.WriteTo(&out)
	err := r.cmd.Wait()
	if exit := (*exec.ExitError)(nil); readErr != nil || err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("%v: %v, %v", r.cmd.Args, readErr, err)
	}
	return result{r.cmd.ProcessState.ExitCode(), out.String(), r.errs.String(), time.Since(r.begun)}
}

// vmm waits for the one VMM of the home and returns its process.
func (h *host) vmm() int {
	h.t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(2 * time.Millisecond) {
		if m := h.machines(); len(m) == 1 {
			return slices.Collect(maps.Values(m))[0]
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("VMMs: %v, want one", h.machines())
		}
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// mount puts a small file system of its own at dir until the test ends.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts file systems")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("aegis-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What has just been killed may still be closing its files: the mount goes with the last.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// scriptedQEMU returns a folder with a program of QEMU's name.
func scriptedQEMU(t *testing.T, version, body string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "aegis-qemu-") //nolint:usetesting // the account of VMMs cannot reach the folders of tests
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text := fmt.Sprintf("#!/bin/sh\ncase \"$1\" in --version) echo 'QEMU emulator version %s'; exit;; esac\n%s\n", version, body)
	err = os.Chmod(dir, 0o755)
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
