package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	f, err := MakeFolder(dir, "api", "own")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(dir); !errors.Is(err, errClaimed) {
		t.Errorf("claimed twice: %v", err)
	}
	type model struct{ Shape string }
	var got model
	if err := f.Begin(model{"a shape"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Process(&got); !errors.Is(err, ErrNoRecord) || got.Shape != "a shape" {
		t.Errorf("before there is a process: %+v, %v", got, err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := f.Started(child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := MakeFolder(dir); err == nil {
		t.Error("a folder with a machine was made another's")
	}
	if f, err = OpenFolder(dir, "api", "own"); err != nil {
		t.Fatal(err)
	}
	got = model{}
	p, err := f.Process(&got)
	if err != nil || p.PID != child.Process.Pid || got.Shape != "a shape" || p.Child() {
		t.Fatalf("%+v, %+v, %v", p, got, err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	_ = child.Wait()
	p.Close()
	if _, err := f.Process(nil); !errors.Is(err, ErrNoProcess) || errors.Is(err, ErrNoRecord) {
		t.Errorf("after its end: %v", err)
	}
	for _, name := range []string{"api", "own/inner"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	f.Clear()
	f.Close()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAccountMayRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(f)
	mode := func() os.FileMode {
		fi, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return fi.Mode().Perm()
	}
	var nobody *Account
	if err := errors.Join(nobody.LetRead(f), nobody.Give(f)); err != nil || mode() != 0o600 {
		t.Errorf("without an account: %v, %v", mode(), err)
	}
	if err := (&Account{}).LetRead(f); err != nil || mode() != 0o604 {
		t.Errorf("%v, %v", mode(), err)
	}
}

func TestSealed(t *testing.T) {
	f, err := MemoryFile("test")
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(f)
	if _, err := f.WriteString("kept"); err != nil {
		t.Fatal(err)
	}
	dup, err := Duplicate(f)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(dup)
	if err := Seal(f); err != nil {
		t.Fatal(err)
	}
	if _, err := dup.WriteAt([]byte("evil"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("what is sealed was written to: %v", err)
	}
}

func TestWords(t *testing.T) {
	if got := PanicLine("[1.0] Kernel panic - not syncing: VFS: \x1b[31mno root\r\nmore"); got != "Kernel panic - not syncing: VFS: [31mno root" {
		t.Errorf("%q", got)
	}
	if got := PanicLine("all is well"); got != "" {
		t.Errorf("%q", got)
	}
	if got := LastWords("one\ntwo\n\n\x07three\nfour\n"); got != "two; three; four" {
		t.Errorf("%q", got)
	}
	if got := WithWords("it ended", " \n"); got != "it ended" {
		t.Errorf("%q", got)
	}
	if got := SignalDetail("It", unix.SIGKILL); !strings.Contains(got, "out of memory") {
		t.Errorf("%q", got)
	}
}
