package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestNinepScript: QEMU gets what it was started with, and the share, whatever its name is.
func TestNinepScript(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a user's, home")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	program, wrapper := filepath.Join(dir, "qemu"), filepath.Join(dir, "wrapper")
	for path, text := range map[string]string{
		program: "#!/bin/sh\nfor a in \"$@\"; do echo \"$a\"; done\n",
		wrapper: ninepScript(program, "/it's, $HOME"),
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), wrapper, "-name", "a  b").Output()
	want := "-name\na  b\n-fsdev\nlocal,id=share,security_model=none,path=/it's,, $HOME\n-device\nvirtio-9p-device,fsdev=share,mount_tag=share\n"
	if err != nil || string(out) != want {
		t.Errorf("%q, %v", out, err)
	}
}

func TestLeftOut(t *testing.T) {
	broken := errors.New("broken")
	for err, want := range map[error]bool{
		broken:                          false,
		fault.New(fault.Exhausted, "x"): true,
		fmt.Errorf("measure speed: %w", &lackError{broken}): true,
	} {
		if got := leftOut(err); (got != "") != want {
			t.Errorf("after %v: %q", err, got)
		}
	}
}
