//go:build integration

package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// ordinary is an ordinary user of the host.
const ordinary = 12345

// newOrdinary is newHost for an ordinary user, who has nothing but a home and the
// programs. Where this process is one, it is the user.
func newOrdinary(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		return newHost(t)
	}
	h := makeHome(t)
	top, err := os.MkdirTemp("", "aegis-user") //nolint:usetesting // others do not get into t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if h.uid != 0 { // it has a daemon
			h.close()
		}
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	bin, home := filepath.Join(top, "bin"), filepath.Join(top, "home")
	for _, c := range [][]string{{"cp", "-r", h.bin, bin}, {"cp", "-r", h.home, home}, {"chown", "-R", strconv.Itoa(ordinary), top}, {"chmod", "-R", "a+rX", bin}, {"chmod", "755", top}} {
		if out, err := exec.CommandContext(t.Context(), c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", c, err, out)
		}
	}
	h.bin, h.home, h.uid = bin, home, ordinary
	h.up()
	return h
}

// become has a command run as the host's user.
func (h *host) become(cmd *exec.Cmd) {
	id := uint32(h.uid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	cmd.Env = append(cmd.Env, "HOME="+filepath.Dir(h.home), "XDG_RUNTIME_DIR=")
	cmd.Dir = "/"
}

// give gives files to the host's user.
func (h *host) give(dir string) {
	h.t.Helper()
	if h.uid == 0 {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, h.uid, h.uid)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}
