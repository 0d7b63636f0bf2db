package nfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// ordinary is an ordinary user of the host, for tests that root runs.
const ordinary = 12345

// bothUsers runs a test as the user who runs it and, if that is root, as an ordinary
// user too, in a process of its own.
func bothUsers(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Getenv("AEGIS_NFS_ORDINARY") != "" || os.Geteuid() != 0 {
		test(t)
		return
	}
	t.Run("root", test)
	t.Run("ordinary", func(t *testing.T) { asOrdinary(t, t.Name()) })
}

// asOrdinary runs the test that t is part of as an ordinary user.
func asOrdinary(t *testing.T, name string) {
	t.Helper()
	top, _, _ := cutName(name)
	exe, dir := ordinaryProgram(t)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+top+"$", "-test.v", "-test.count=1")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "AEGIS_NFS_ORDINARY=1", "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as user %d: %v\n%s", ordinary, err, out)
	}
	t.Logf("%s", out)
}

func cutName(name string) (top, rest string, ok bool) {
	for i := range len(name) {
		if name[i] == '/' {
			return name[:i], name[i+1:], true
		}
	}
	return name, "", false
}

// ordinaryProgram returns a copy of this program that everybody may execute, and a
// folder of the ordinary user's.
func ordinaryProgram(t *testing.T) (exe, dir string) {
	t.Helper()
	top, err := os.MkdirTemp("", "nfs-ordinary") //nolint:usetesting // nobody else gets into t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	exe, dir = filepath.Join(top, "test"), filepath.Join(top, "home")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	return exe, dir
}
