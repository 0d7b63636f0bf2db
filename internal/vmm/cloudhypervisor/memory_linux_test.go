package cloudhypervisor

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
)

// TestRoom checks that no more is promised of the file system of memory than it has.
func TestRoom(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs(memoryDir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Skipf("no file system in memory here: %v", err)
	}
	free := size.Bytes(st.Bavail) * size.Bytes(st.Bsize)
	if free < 64*size.MiB {
		t.Skipf("only %v free", free)
	}
	var r room
	named := func(want bool) {
		t.Helper()
		f, err := r.newMemoryFile(16 * size.MiB)
		if err != nil {
			t.Fatal(err)
		}
		defer host.CloseAll(f)
		if inTmpfs(f) != want {
			t.Errorf("in %s: %v", memoryDir, !want)
		}
		if fi, err := f.Stat(); err != nil || fi.Size() != int64(16*size.MiB) {
			t.Errorf("%v, %v", fi, err)
		}
	}
	named(true)
	r.change(free)
	named(false)
	r.change(-free)
	named(true)
}

// TestClosed checks that what clones run on cannot be written to, whatever it was.
func TestClosed(t *testing.T) {
	d := &Driver{}
	for name, make := range map[string]func() (*memory, error){
		"a memfd": func() (*memory, error) {
			f, err := host.MemoryFile(memoryName)
			return &memory{file: f, driver: d}, err
		},
		"a file that can have a name": func() (*memory, error) {
			f, err := d.room.newMemoryFile(1 << 20)
			return &memory{file: f, driver: d}, err
		},
	} {
		m, err := make()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.file.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		if _, err := m.file.WriteAt([]byte("kept"), 5000); err != nil {
			t.Fatal(err)
		}
		m.free()
		f, err := m.clone()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("evil"), 5000); err == nil {
			t.Errorf("%s: it was written to", name)
		}
		b := [4]byte{}
		if _, err := f.ReadAt(b[:], 5000); err != nil || !bytes.Equal(b[:], []byte("kept")) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		host.CloseAll(f)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
