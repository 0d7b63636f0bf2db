//go:build integration

package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// digests is a shell command that prints the SHA-256 of each secret, or of nothing.
const digests = `for v in "$PLANTED" "$LINES" "$MOST"; do printf %s "$v" | sha256sum | cut -d' ' -f1; done`

func digestsOf(values ...string) string {
	var b strings.Builder
	for _, v := range values {
		fmt.Fprintf(&b, "%x\n", sha256.Sum256([]byte(v)))
	}
	return b.String()
}

// TestSecrets follows secrets into a VM: program and execs have them exactly when the
// instance is given them, and nobody else does.
func TestSecrets(t *testing.T) {
	const planted, other = "planted-5d1e-nowhere-to-be-found", "another-77f0-nowhere-to-be-found"
	const lines = "-----BEGIN-----\n\tone two\r\n\n'\"$HOME\\ ü\x01\n"
	most := strings.Repeat("0123456789", 14000)[:128<<10-len("MOST=\x00")] // what Linux allows
	h := newHost(t)
	store := func(name, value string, args ...string) {
		t.Helper()
		cmd := h.aegis(append([]string{"secret", "set", "--exact", name}, args...)...)
		cmd.Stdin = strings.NewReader(value)
		if r := finish(t, cmd); r.status != 0 || r.stdout != "Secret set: "+name+"\n" || r.stderr != "" {
			t.Fatalf("secret set %s: %+v", name, r)
		}
	}
	store("PLANTED", planted)
	store("LINES", lines)
	store("MOST", most)

	h.ok("instance", "start", "--name", "box", "--pause-after", "0", "--secret", "PLANTED", "--secret", "LINES", "--secret", "MOST", "--",
		"sh", "-c", digests+"; exec sleep 1000")
	want := digestsOf(planted, lines, most)
	eventually(t, "the program has told what it has", func() bool { return strings.Count(h.ok("logs", "box"), "\n") >= 3 })
	if got := h.ok("logs", "box"); got != want {
		t.Errorf("the program has\n%s, want\n%s", got, want)
	}
	if got := h.ok("exec", "box", "--", "sh", "-c", digests); got != want {
		t.Errorf("an exec has\n%s, want\n%s", got, want)
	}
	if r := h.try("exec", "box", "--", "grep", "-c", "PLANTED", "/proc/1/environ"); r.status != 1 || r.stdout != "0\n" {
		t.Errorf("PID 1 of the VM has it too: %+v", r)
	}
	secretIsNowhere(t, h, planted)

	// Without being asked for, it is not there; with a new value it is that.
	h.ok("instance", "secrets", "box", "--none")
	if got, none := h.ok("exec", "box", "--", "sh", "-c", digests), digestsOf("", "", ""); got != none {
		t.Errorf("an exec that is given none has\n%s", got)
	}
	store("PLANTED", other)
	h.ok("instance", "secrets", "box", "PLANTED")
	h.ok("instance", "restart", "box")
	eventually(t, "the program has told again", func() bool { return strings.Count(h.ok("logs", "box"), "\n") >= 7 }) // with the end of the one before
	if got := h.ok("logs", "--tail", "3", "box"); !strings.HasPrefix(got, digestsOf(other)) {
		t.Errorf("after a restart the program has\n%s", got)
	}
	h.ok("secret", "rotate")
	if got := h.ok("exec", "box", "--", "sh", "-c", digests); got != digestsOf(other, "", "") {
		t.Errorf("after a rotation an exec has\n%s", got)
	}
	secretIsNowhere(t, h, planted)
	secretIsNowhere(t, h, other)
	h.ok("instance", "delete", "box")
	secretIsNowhere(t, h, other)
}

// holds reports whether a file has the value in it. It reads the data of disks, which are
// mostly holes, in pieces.
func holds(t *testing.T, path string, value []byte) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return false // it may have gone
	}
	defer f.Close() //nolint:errcheck // only read
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		if data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); err == nil {
			at = data
		} else if errors.Is(err, unix.ENXIO) {
			return false // holes to the end
		}
		n, err := f.ReadAt(buf, at)
		if bytes.Contains(buf[:n], value) {
			return true
		}
		if err != nil || n <= len(value) {
			return false
		}
		at += int64(n - len(value)) // it may lie across two pieces
	}
}

// secretIsNowhere looks for a value in the files of the home and in arguments and
// environment of all processes.
func secretIsNowhere(t *testing.T, h *host, value string) {
	t.Helper()
	look := func(path string) {
		if holds(t, path, []byte(value)) {
			t.Errorf("%s has the secret", path)
		}
	}
	files := 0
	err := filepath.WalkDir(h.home, func(path string, d fs.DirEntry, err error) error {
		// Kernel and images were there before; a disk belongs to its guest.
		if err == nil && d.IsDir() && (path == filepath.Join(h.home, "kernel") || path == filepath.Join(h.home, "data", "images")) {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() && d.Name() != "disk" {
			files++
			look(path)
		}
		return err
	})
	if err != nil || files < 4 { // key, database, log, pid file
		t.Errorf("%d files were looked at, %v", files, err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		look(filepath.Join(p, "cmdline"))
		look(filepath.Join(p, "environ"))
	}
}
