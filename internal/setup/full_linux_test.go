package setup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestFullDisk: a copy that has no room is told as what it is. Building the image instead would
// need as much.
func TestFullDisk(t *testing.T) {
	first := newWorld(t)
	first.Cache = filepath.Join(t.TempDir(), "cache")
	if err := Run(t.Context(), first.Options); err != nil {
		t.Fatal(err)
	}
	second := newWorld(t)
	second.Cache = first.Cache
	images := second.Home.Images()
	if err := os.MkdirAll(images, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("tmpfs", images, "tmpfs", 0, "size=4k")
	if errors.Is(err, unix.EPERM) {
		t.Skip("only root may mount a small disk")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(images, unix.MNT_DETACH) })
	err = Run(t.Context(), second.Options)
	if fault.KindOf(err) != fault.Exhausted || fault.HintOf(err) == "" {
		t.Errorf("Run = %v, hint %q", err, fault.HintOf(err))
	}
	if calls := second.calls("mmdebstrap"); len(calls) != 0 {
		t.Errorf("it went on: %q", calls)
	}
}
