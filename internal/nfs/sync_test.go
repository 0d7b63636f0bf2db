package nfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// syncs counts what goes to the disk.
type syncs struct {
	mu   sync.Mutex
	fds  []int
	fail error
	hold chan struct{}
}

func watch(r *rig) *syncs {
	w := &syncs{}
	r.s.volumes[0].syncer.data = func(fd int) error {
		if w.hold != nil {
			<-w.hold
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fds = append(w.fds, fd)
		return w.fail
	}
	return w
}

func (w *syncs) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.fds)
}

func TestSyncing(t *testing.T) {
	_, r, c, root := folder(t)
	w := watch(r)
	h, _, st := c.create(root, "file", createGuarded, mode(0o600))
	must(t, "create", st)
	must(t, "first stable write", c.write(h, 0, fileSync, []byte("1")))
	if n := w.count(); n != 0 {
		t.Errorf("%d syncs for what close() sends", n)
	}
	must(t, "second stable write", c.write(h, 1, fileSync, []byte("2")))
	if n := w.count(); n != 2 { // the one that waited, then this one
		t.Errorf("%d syncs, want 2", n)
	}
	must(t, "unstable write", c.write(h, 2, unstable, []byte("3")))
	if n := w.count(); n != 2 {
		t.Errorf("%d syncs after an unstable write", n)
	}
	first, st := c.commit(h)
	must(t, "commit", st)
	if n := w.count(); n != 3 {
		t.Errorf("%d syncs after a commit", n)
	}
	if again, _ := c.commit(h); again != first {
		t.Error("the verifier has changed")
	}
	must(t, "data only", c.write(h, 3, dataSync, []byte("4")))
	if n := w.count(); n != 5 {
		t.Errorf("%d syncs", n)
	}
	w.fail = errors.New("no disk")
	want(t, "stable write without a disk", c.write(h, 0, fileSync, []byte("1")), errIO)
	_, st = c.commit(h)
	want(t, "commit without a disk", st, errIO)
}

// TestOrderIsKept: what is synced later waits for what was made earlier.
func TestOrderIsKept(t *testing.T) {
	_, r, c, root := folder(t)
	old, _, _ := c.create(root, "old", createGuarded, mode(0o600))
	must(t, "write", c.write(old, 0, fileSync, []byte("1")))
	_, st := c.commit(old)
	must(t, "commit", st)
	w := watch(r)
	const n = 20
	for i := range n {
		h, _, _ := c.create(root, strconv.Itoa(i), createGuarded, mode(0o600))
		must(t, "write", c.write(h, 0, fileSync, []byte("1")))
	}
	if w.count() != 0 {
		t.Fatal("synced at once")
	}
	must(t, "write", c.write(old, 0, fileSync, []byte("2")))
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.fds) != n+1 || slices.Contains(w.fds[:n], w.fds[n]) {
		t.Errorf("synced %v", w.fds)
	}
}

func TestSyncedSoon(t *testing.T) {
	_, r, c, root := folder(t)
	w := watch(r)
	h, _, _ := c.create(root, "file", createGuarded, mode(0o600))
	must(t, "write", c.write(h, 0, fileSync, []byte("1")))
	gone, _, _ := c.create(root, "gone", createGuarded, mode(0o600))
	must(t, "write", c.write(gone, 0, fileSync, []byte("1")))
	must(t, "remove", c.remove(root, "gone"))
	for late := time.Now().Add(10 * time.Second); w.count() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("never synced")
		}
	}
	r.close()
	if n := w.count(); n != 1 {
		t.Errorf("%d syncs: one file of two was removed", n)
	}
}

// TestTooManyWait: a guest that makes files faster than the disk takes them is slowed
// down, and holds a bounded number of files.
func TestTooManyWait(t *testing.T) {
	_, r, c, root := folder(t)
	w := watch(r)
	w.hold = make(chan struct{})
	made := make(chan int, 10000)
	go func() {
		defer close(made)
		for i := range 2 * tooMany {
			h, _, _ := c.create(root, strconv.Itoa(i), createGuarded, mode(0o600))
			want(t, "write", c.write(h, 0, fileSync, []byte("1")), statusOK)
			made <- i
		}
	}()
	last := 0
	for idle := false; !idle; {
		select {
		case last = <-made:
		case <-time.After(500 * time.Millisecond):
			idle = true
		}
	}
	if last < manyWaiting || last > 2*tooMany-5 {
		t.Errorf("%d files were made while the disk took none", last)
	}
	close(w.hold)
	for i := range made {
		last = i
	}
	if last != 2*tooMany-1 {
		t.Errorf("only %d", last)
	}
	r.close()
	if n := w.count(); n != 2*tooMany {
		t.Errorf("%d syncs", n)
	}
}

// TestCloseSyncs: the end of a server puts on the disk what was never asked to be.
func TestCloseSyncs(t *testing.T) {
	_, r, c, root := folder(t)
	h, _, _ := c.create(root, "file", createGuarded, mode(0o600))
	must(t, "write", c.write(h, 0, unstable, []byte("1")))
	f := r.s.volumes[0].files.get(identOf(t, h), true)
	if f == nil || !f.dirty {
		t.Fatalf("%+v: the file is not known to be dirty", f)
	}
	r.s.volumes[0].files.release(f)
	synced := 0
	r.s.volumes[0].files.sync = func(int) error { synced++; return nil }
	r.close()
	if synced != 1 {
		t.Errorf("%d files were synced", synced)
	}
}

// TestIdleFiles: what nobody uses is closed, what nobody could open again later.
func TestIdleFiles(t *testing.T) {
	dir, r, c, root := folder(t)
	files := r.s.volumes[0].files
	var open []string
	for _, name := range []string{"idle", "orphan", "busy"} {
		h, _, st := c.create(root, name, createGuarded, mode(0o600))
		must(t, "create", st)
		must(t, "write", c.write(h, 0, unstable, []byte(name)))
		open = append(open, string(h))
	}
	if err := os.Remove(filepath.Join(dir, "orphan")); err != nil {
		t.Fatal(err)
	}
	busy := files.get(identOf(t, []byte(open[2])), true)
	for _, step := range []struct {
		after time.Duration
		left  int
	}{{idleFor / 2, 3}, {2 * idleFor, 2}, {2 * orphanFor, 1}} {
		left := func() int {
			files.sweep(time.Now().Add(step.after))
			files.mu.Lock()
			defer files.mu.Unlock()
			return len(files.open)
		}
		n := left()
		for deadline := time.Now().Add(5 * time.Second); n > step.left && time.Now().Before(deadline); n = left() {
			time.Sleep(time.Millisecond) // a request has been answered, and still holds its file
		}
		if n != step.left {
			t.Errorf("%d files are open after %v, want %d", n, step.after, step.left)
		}
		if step.left == 2 {
			if got := c.text([]byte(open[1])); got != "orphan" {
				t.Errorf("the orphan: %s", got)
			}
		}
	}
	files.release(busy)
	if got := c.text([]byte(open[0])); got != "idle" {
		t.Errorf("opened again: %s", got)
	}
}

// TestVolatile syncs nothing, whatever is asked for.
func TestVolatile(t *testing.T) {
	dir := t.TempDir()
	r := serve(t, Options{}, Export{Name: "/", Dir: dir, ID: 7, Volatile: true})
	c := r.client()
	root := c.mnt("/")
	w := watch(r)
	h, _, st := c.create(root, "file", createGuarded, mode(0o600))
	must(t, "create", st)
	for range 3 {
		must(t, "stable write", c.write(h, 0, fileSync, []byte("text")))
		must(t, "unstable write", c.write(h, 0, unstable, []byte("text")))
		_, st := c.commit(h)
		must(t, "commit", st)
	}
	if n := w.count(); n != 0 {
		t.Errorf("%d syncs", n)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}
