package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestHomeRemoved removes the home of a daemon that runs, as people do who want to begin
// again, and begins again at once. The old daemon ends, with what it runs, and leaves the
// new one alone.
func TestHomeRemoved(t *testing.T) {
	u := &user{t: t, home: filepath.Join(t.TempDir(), "home")}
	u.env = append(os.Environ(), "AEGIS_HOME="+u.home)
	daemon := exec.CommandContext(t.Context(), "aegisd")
	daemon.Env = u.env
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if status, _ := u.cli("status"); status == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not serve")
		}
	}
	u.ok("instance", "start", "--name", "box", "--", "sleep", "1000")
	if err := os.RemoveAll(u.home); err != nil {
		t.Fatal(err)
	}
	u.ok("up")
	defer u.ok("down")
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the old daemon goes on")
	}
	if got := u.object("GET", "/v1/status", "", 200); got["instances"] != 0.0 {
		t.Errorf("the new daemon: %v", got)
	}
	if _, err := os.Stat(filepath.Join(u.home, "data", "aegisd.pid")); err != nil {
		t.Error(err)
	}
}
