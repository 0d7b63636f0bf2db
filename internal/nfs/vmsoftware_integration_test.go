//go:build integration

package nfs_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/nfs"
)

// TestVMSoftware runs real programs on the workspace while the host works in it too.
func TestVMSoftware(t *testing.T) {
	v, dir := onWorkspace(t)
	w := &shared{vm: v, dir: dir}
	t.Run("both ways", w.bothWays)
	t.Run("git", w.git)
	t.Run("sqlite", w.sqlite)
	t.Run("many files", w.manyFiles)
	t.Run("large files", w.largeFiles)
	t.Run("host renames", w.hostRenames)
	t.Run("pause", w.pause)
	t.Run("new server", w.newServer)
	t.Run("mount again", w.mountAgain)
}

// shared is a guest, and the folder on the host that is its workspace.
type shared struct {
	*vm

	dir string
}

func (w *shared) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func (w *shared) put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (w *shared) get(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually has the guest run a script until it succeeds, and returns how long that
// took.
func (w *shared) eventually(t *testing.T, script string) time.Duration {
	t.Helper()
	begun := time.Now()
	w.must(t, "for i in $(seq 500); do if "+script+"; then exit 0; fi; sleep 0.02; done; exit 1")
	return time.Since(begun)
}

func (w *shared) bothWays(t *testing.T) {
	w.must(t, "echo from the guest > new; mkdir -p a/b; echo x > a/b/c")
	if got := w.get(t, "new"); got != "from the guest\n" {
		t.Errorf("on the host: %q", got)
	}
	fi, err := os.Stat(w.path("a/b/c"))
	if err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", fi, err)
	}
	w.put(t, "new", "from the host\n")
	t.Logf("a changed file: %v", w.eventually(t, "grep -q host new"))
	w.must(t, "! test -e later") // a name that was looked up before
	w.put(t, "later", "x")
	t.Logf("a new file: %v", w.eventually(t, "test -e later"))
	if got := w.must(t, "stat -c '%u:%g %a' later"); got != "0:0 644\n" {
		t.Errorf("the host's file is %s", got)
	}
	if err := os.Remove(w.path("later")); err != nil {
		t.Fatal(err)
	}
	t.Logf("a removed file: %v", w.eventually(t, "! test -e later"))
	if err := os.Rename(w.path("a"), w.path("z")); err != nil {
		t.Fatal(err)
	}
	t.Logf("a renamed folder: %v", w.eventually(t, "test -e z/b/c && ! test -e a"))
	// An editor's save: a new file takes the place of the old one.
	for i := range 5 {
		w.must(t, "cat new > /dev/null")
		w.put(t, "new.tmp", fmt.Sprintln("saved", i))
		if err := os.Rename(w.path("new.tmp"), w.path("new")); err != nil {
			t.Fatal(err)
		}
		w.eventually(t, fmt.Sprintf("grep -q 'saved %d' new", i))
	}
	// Following a file that the host appends to.
	w.put(t, "log", "hay\n")
	wait := w.start(t, "timeout", "60", "sh", "-c", "touch follows; tail -n +1 -f log | grep -m 1 needle")
	w.eventually(t, "test -e follows")
	f, err := os.OpenFile(w.path("log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"more hay\n", "a needle\n", "hay\n"} {
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Close()
	if out, status := wait(); status != 0 || out != "a needle\n" {
		t.Errorf("followed: %q, status %d", out, status)
	}
}

// heavy is the full size of a test under stress, else the small one.
func heavy(full, small int) int {
	if os.Getenv("AEGIS_STRESS") != "" {
		return full
	}
	return small
}

func (w *shared) git(t *testing.T) {
	w.must(t, `set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
mkdir repo && cd repo && git init -q .
for i in $(seq 50); do echo "file $i" > f$i; done
git add . && git commit -qm one
for i in $(seq 20); do echo more >> f$i; done
git commit -qam two && git checkout -qb side HEAD~1 && echo side > s && git add s && git commit -qm side
git merge -q -m merge master 2>/dev/null || git merge -q -m merge main
git gc -q && git fsck --full && git clone -q . ../clone && cd ../clone && git status --porcelain && git log --oneline | wc -l
git worktree add -q ../tree HEAD~1 && git -C ../tree status --porcelain`)
	if out, status := w.sh(t, "cd repo && git status --porcelain && git stash list && ls .git/objects/pack | wc -l"); status != 0 {
		t.Error(out)
	}
	n := 0
	err := filepath.WalkDir(w.path(), func(_ string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".nfs") {
			n++
		}
		return err
	})
	if err != nil || n > 0 {
		t.Errorf("%d files are left that were removed while open, %v", n, err)
	}
}

func (w *shared) sqlite(t *testing.T) {
	for _, mode := range []string{"delete", "wal", "truncate", "persist"} {
		out, status := w.start(t, "python3", "-c", `
import os, sqlite3, sys
mode = sys.argv[1]
path = "/workspace/%s.db" % mode
db = sqlite3.connect(path, isolation_level=None)
print(db.execute("pragma journal_mode=" + mode).fetchone()[0])
db.execute("create table t (n integer primary key, s text)")
for i in range(30):
    db.execute("begin")
    for j in range(20):
        db.execute("insert into t (s) values (?)", ("x" * 500,))
    db.execute("commit" if i % 3 else "rollback")
r, w = os.pipe()
pid = os.fork()
if pid == 0:  # another process, at the same time
    other = sqlite3.connect(path, timeout=30)
    for i in range(20):
        with other:
            other.execute("insert into t (s) values ('other')")
    os._exit(0)
for i in range(20):
    db.execute("insert into t (s) values ('mine')")
assert os.waitpid(pid, 0)[1] == 0
print(db.execute("select count(*) from t").fetchone()[0], db.execute("pragma integrity_check").fetchone()[0])
`, mode)()
		if want := mode + "\n440 ok\n"; status != 0 || out != want {
			t.Errorf("%s: %q, status %d; want %q", mode, out, status, want)
		}
	}
}

func (w *shared) manyFiles(t *testing.T) {
	n := heavy(10000, 1000)
	begun := time.Now()
	w.must(t, fmt.Sprintf(`python3 - <<'EOF'
import os
for i in range(%d):
    d = "/workspace/many/%%02d" %% (i %% 100)
    if i < 100:
        os.makedirs(d)
    with open("%%s/file-%%d" %% (d, i), "w") as f:
        f.write("content %%d" %% i)
EOF`, n))
	t.Logf("%d files made in %v", n, time.Since(begun))
	for i := range n {
		if got := w.get(t, fmt.Sprintf("many/%02d/file-%d", i%100, i)); got != fmt.Sprint("content ", i) {
			t.Fatalf("file %d holds %q", i, got)
		}
	}
	begun = time.Now()
	if got := w.must(t, "find many -type f | wc -l; tar cf - many | tar tf - | wc -l; cp -a many copy && diff -r many copy && rm -r many copy && ls"); !strings.HasPrefix(got, fmt.Sprintf("%d\n%d\n", n, n+101)) || strings.Contains(got, "many") {
		t.Errorf("%q", got)
	}
	t.Logf("found, packed, copied, compared and removed in %v", time.Since(begun))
}

func (w *shared) largeFiles(t *testing.T) {
	mb := heavy(1024, 128)
	begun := time.Now()
	w.must(t, fmt.Sprintf("dd if=/dev/zero of=big bs=1M count=%d conv=fsync status=none && printf tail >> big", mb))
	t.Logf("%d MB written in %v", mb, time.Since(begun))
	if fi, err := os.Stat(w.path("big")); err != nil || fi.Size() != int64(mb)<<20+4 {
		t.Errorf("%v, %v", fi, err)
	}
	begun = time.Now()
	got := w.must(t, "echo 3 > /proc/sys/vm/drop_caches; tail -c 4 big; cat big | wc -c")
	if got != fmt.Sprintf("tail%d\n", mb<<20+4) {
		t.Errorf("%q", got)
	}
	t.Logf("and read in %v", time.Since(begun))
	w.must(t, "rm big; truncate -s 100G sparse; printf x | dd of=sparse bs=1 seek=50G conv=notrunc status=none; test $(du -k sparse | cut -f1) -lt 1000 && rm sparse")
	// What one side writes is what the other reads, byte by byte.
	random := make([]byte, 20<<20+123)
	for i := range random {
		random[i] = byte(i*i>>3 ^ i>>11)
	}
	w.put(t, "random", string(random))
	sum := fmt.Sprintf("%x", sha256.Sum256(random))
	if got := w.must(t, "cp random again && sha256sum < random && sha256sum < again"); strings.Count(got, sum) != 2 {
		t.Errorf("%s, want %s", got, sum)
	}
	if !bytes.Equal([]byte(w.get(t, "again")), random) {
		t.Error("the copy differs on the host")
	}
	w.must(t, "rm random again")
}

// hostRenames: a program in the guest keeps files and folders open while the host
// moves them about.
func (w *shared) hostRenames(t *testing.T) {
	w.must(t, "mkdir -p moving/inner; echo start > moving/inner/log")
	wait := w.start(t, "sh", "-c", "cd moving/inner && exec 3>>log && echo ready > ready && while ! test -e stop; do echo line >&3; sleep 0.02; done; echo end >&3; pwd -P > /dev/null; touch here")
	w.eventually(t, "test -e moving/inner/ready")
	for i := range 10 {
		from, to := "moving", "moved"
		if i%2 == 1 {
			from, to = to, from
		}
		if err := os.Rename(w.path(from), w.path(to)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond)
	}
	if err := os.Rename(w.path("moving/inner"), w.path("apart")); err != nil {
		t.Fatal(err)
	}
	w.put(t, "apart/stop", "")
	if out, status := wait(); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
	if got := w.get(t, "apart/log"); !strings.HasPrefix(got, "start\nline\n") || !strings.HasSuffix(got, "line\nend\n") {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(w.path("apart/here")); err != nil {
		t.Error(err)
	}
}

func (w *shared) pause(t *testing.T) {
	wait := w.start(t, "sh", "-c", "for i in $(seq 40); do echo $i; sleep 0.02; done > counted; cat counted | wc -l")
	for range 3 {
		if err := w.machine.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := w.machine.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if out, status := wait(); out != "40\n" || status != 0 {
		t.Errorf("%q, status %d", out, status)
	}
}

// newServer: a new daemon, with a new network and a new server, takes over while a
// program has files open, and another works.
func (w *shared) newServer(t *testing.T) {
	w.must(t, "mkdir held; echo text > held/file")
	wait := w.start(t, "python3", "-c", `
import os, time
os.chdir("/workspace/held")
f = open("file", "r+b")
gone = open("gone", "w+b")
gone.write(b"unlinked")
gone.flush()
os.unlink("gone")
open("ready", "w").close()
n = 0
while not os.path.exists("stop"):
    n += 1
    f.seek(0)
    f.write(b"%8d" % n)
    os.fsync(f.fileno())
    with open("made-%d" % (n % 10), "w") as g:
        g.write("x")
    os.rename("made-%d" % (n % 10), "kept-%d" % (n % 10))
gone.seek(0)
assert gone.read() == b"unlinked"
print("%8d" % n)
`)
	w.eventually(t, "test -e held/ready")
	for range 5 {
		w.stop(t)
		_ = w.network.Close()
		w.attach(t)
		w.serve(t, nfs.Export{Name: "/", Dir: w.dir, ID: 1})
		before := w.get(t, "held/file")
		begun := time.Now()
		w.reconnect(t, guestproto.MountPoint{Export: "/", Target: "/workspace"})
		for w.get(t, "held/file") == before {
			if time.Since(begun) > 30*time.Second {
				t.Fatal("the guest does not go on")
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("went on after %v", time.Since(begun))
	}
	w.put(t, "held/stop", "")
	out, status := wait()
	if status != 0 || strings.TrimRight(out, "\n") != w.get(t, "held/file")[:8] {
		t.Errorf("status %d: %q, and the file %q", status, out, w.get(t, "held/file"))
	}
}

func (w *shared) mountAgain(t *testing.T) {
	w.mount(t, guestproto.MountPoint{Export: "/", Target: "/workspace"}, guestproto.MountPoint{Export: "/", Target: "/workspace/"})
	if got := w.must(t, "grep -c ' /workspace ' /proc/mounts"); got != "1\n" {
		t.Errorf("mounted %s times", got)
	}
	w.mount(t, guestproto.MountPoint{Export: "/", Target: "/some/where/else", ReadOnly: true})
	if got := w.must(t, "cat /some/where/else/new; touch /some/where/else/x 2>&1; true"); !strings.Contains(got, "saved 4") || !strings.Contains(got, "Read-only") {
		t.Errorf("%q", got)
	}
	for _, p := range []guestproto.MountPoint{
		{Export: "/no/such", Target: "/x"},
		{Export: "/", Target: "/"},
		{Export: "/", Target: "x"},
		{Export: "", Target: "/x"},
		{Export: "/", Target: "/etc/hostname"},
		{Export: "/", Target: "/x/../.."},
	} {
		if err := w.link.Mount(t.Context(), guestproto.Mount{Mounts: []guestproto.MountPoint{p}}); err == nil {
			t.Errorf("mounted %+v", p)
		} else {
			t.Logf("%+v: %v", p, err)
		}
	}
}
