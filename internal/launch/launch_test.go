package launch

import (
	"errors"
	"os"
	"testing"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/presence"
)

// TestStatusOfKilledDaemon asks a daemon that has been killed a moment ago: its lock is free,
// its socket still takes connections.
func TestStatusOfKilledDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "aegis-launch-") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home := paths.Home(dir)
	ln, err := presence.Listen(t.Context(), home.Socket())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close() // as the kernel does for the dead
		}
	}()
	defer func() {
		_ = ln.Close()
		<-done
	}()
	d := Daemon{Home: home}
	if _, err := d.Status(t.Context()); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("err = %v", err)
	}
}
