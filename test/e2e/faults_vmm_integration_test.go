//go:build integration

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestFaultQEMU has a VMM that is missing, wrong or dying.
func TestFaultQEMU(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		h := newHome(t, "PATH="+t.TempDir())
		h.fails("qemu_missing", 125, h.try("run", "--", "true"))
	})
	t.Run("too old", func(t *testing.T) {
		h := newHome(t, "PATH="+scriptedQEMU(t, "5.2.0", "exit 1")+":"+os.Getenv("PATH"))
		h.fails("qemu_too_old", 125, h.try("run", "--", "true"))
	})
	t.Run("ends at once", func(t *testing.T) {
		dir := scriptedQEMU(t, "7.2.1", "echo \"${0##*/}: cannot do that\" >&2; exit 1")
		h := newHome(t, "AEGIS_ACCEL=tcg", "PATH="+dir+":"+os.Getenv("PATH"))
		h.fails("qemu_ends", 125, h.try("run", "--", "true"))
	})
	t.Run("says nothing", func(t *testing.T) {
		dir := scriptedQEMU(t, "7.2.1", "exec sleep 600")
		h := newHome(t, "AEGIS_ACCEL=tcg", "AEGIS_TEMPLATES=off", "AEGIS_BOOT_TIMEOUT=2s", "PATH="+dir+":"+os.Getenv("PATH"))
		h.fails("qemu_silent", 125, h.try("run", "--", "true"))
	})
	h := newHost(t, "AEGIS_TEMPLATES=off") // a clone that is killed is followed by a boot
	t.Run("killed", func(t *testing.T) {
		h := h.sub(t)
		r := h.background("run", "--", "sh", "-c", "echo ready; exec sleep 600")
		r.ready()
		kill(t, h.vmm())
		h.fails("qemu_killed", 125, r.wait())
	})
	t.Run("killed while it boots", func(t *testing.T) {
		h := h.sub(t)
		r := h.background("run", "--", "true")
		pid := h.vmm()
		h.boots(pid)
		kill(t, pid)
		h.fails("qemu_killed_booting", 125, r.wait())
	})
	h.works()
}

// boots waits until a VMM has worked for its guest: longer than its own start takes,
// and shorter than a boot.
func (h *host) boots(pid int) {
	h.t.Helper()
	for deadline := time.Now().Add(hang); h.used(pid) < 300*time.Millisecond; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("it does nothing")
		}
	}
}

// used returns the CPU time of a process.
func (h *host) used(pid int) time.Duration {
	h.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		h.t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(stat), ") ") // proc(5): utime is the 14th, in 1/100 s
	ticks, err := strconv.Atoi(strings.Fields(fields)[11])
	if err != nil {
		h.t.Fatal(err)
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// cpu returns what a process uses of the CPU in a span of time.
func (h *host) cpu(pid int, span time.Duration) time.Duration {
	h.t.Helper()
	before := h.used(pid)
	time.Sleep(span)
	return h.used(pid) - before
}
