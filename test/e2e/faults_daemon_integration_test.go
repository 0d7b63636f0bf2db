//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFaultDaemonKilled kills the daemon under a run. The guest has nobody to come
// back to and turns itself off; what else is left goes when a daemon starts.
func TestFaultDaemonKilled(t *testing.T) {
	t.Parallel() // it waits for the guest most of the time
	h := newHost(t)
	r := h.background("run", "--", "sh", "-c", "echo ready; exec sleep 600")
	r.ready()
	pid := h.vmm()
	killed := time.Now()
	h.signal(syscall.SIGKILL)
	got := r.wait()
	if got.status != 125 || got.took > 10*time.Second {
		t.Errorf("status %d after %v", got.status, got.took)
	}
	h.golden("daemon_killed", got.stderr)
	for alive(pid) {
		if time.Since(killed) > 30*time.Second {
			t.Fatal("the guest goes on without a daemon")
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("the guest turned itself off %v after its daemon's end", time.Since(killed))
	h.works()
	h.clean()
}

// TestFaultDaemonKilledBooting kills the daemon before the guest has ever heard of
// it: the guest does not wait for ever either.
func TestFaultDaemonKilledBooting(t *testing.T) {
	t.Parallel() // as above
	h := newHost(t)
	r := h.background("run", "--", "true")
	pid := h.vmm()
	killed := time.Now()
	h.signal(syscall.SIGKILL)
	got := r.wait()
	if got.status != 125 || got.took > 10*time.Second {
		t.Errorf("status %d after %v", got.status, got.took)
	}
	h.golden("daemon_killed_booting", got.stderr)
	for alive(pid) {
		if time.Since(killed) > hang { // it has to boot before it can be lonely
			t.Fatal("the guest goes on without a daemon")
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.works()
	h.clean()
}

// TestFaultDaemon has what else can be wrong with a daemon.
func TestFaultDaemon(t *testing.T) {
	h := newHost(t)
	t.Run("killed, and started again at once", func(t *testing.T) {
		h := h.sub(t)
		r := h.background("run", "--", "sh", "-c", "echo ready; exec sleep 600")
		r.ready()
		h.signal(syscall.SIGKILL)
		if got := r.wait(); got.status != 125 {
			t.Errorf("status %d", got.status)
		}
		begin := time.Now()
		h.works()
		h.clean()
		if took := time.Since(begin); took > hang {
			t.Errorf("the next run took %v", took)
		}
	})
	t.Run("second", func(t *testing.T) {
		h := h.sub(t)
		cmd := exec.CommandContext(t.Context(), filepath.Join(h.bin, "aegisd"))
		cmd.Env = append(os.Environ(), "AEGIS_HOME="+h.home)
		r := finish(t, cmd)
		if r.status != 1 {
			t.Errorf("status %d", r.status)
		}
		h.golden("daemon_second", r.stderr)
		h.works()
	})
	t.Run("broken settings", func(t *testing.T) {
		h := newHome(t)
		if err := os.WriteFile(filepath.Join(h.home, "config.toml"), []byte("memroy = \"1G\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.fails("settings_broken", 125, h.try("run", "--", "true"))
		remove(t, filepath.Join(h.home, "config.toml"))
	})
}
