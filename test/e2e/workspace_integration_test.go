//go:build integration

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/test/vmrig"
)

// scribe counts into one file of the workspace that it keeps open.
const scribe = `
import itertools, time
f = open('/workspace/count', 'w')
for i in itertools.count():
    f.write('%d\n' % i)
    f.flush()
    time.sleep(.05)
`

// coherence is after how long a guest sees what was changed on the host.
const coherence = 1500 * time.Millisecond

// TestWorkspace works in a workspace from both sides, under a daemon of this user, who
// may be root, and under one of an ordinary user.
func TestWorkspace(t *testing.T) {
	t.Run("own user", func(t *testing.T) { newWork(t, newHost(t)).all(t, stress(false, true)) })
	t.Run("ordinary user", func(t *testing.T) { newWork(t, newOrdinary(t)).all(t, true) })
}

// all does everything; what does not depend on who the user is only where it is asked
// for.
func (w *work) all(t *testing.T, full bool) {
	t.Run("guest to host", w.guestToHost)
	t.Run("host to guest", w.hostToGuest)
	t.Run("API", w.overAPI)
	if full {
		t.Run("runs", w.runs)
		t.Run("hibernate", w.hibernate)
		t.Run("killed daemon", w.killedDaemon)
		t.Run("shared", w.shared)
		t.Run("missing", w.missing)
	}
	t.Run("deleted", w.deleted)
}

// work is a folder of the host's in which an instance, ws, works.
type work struct {
	*host

	dir, ro string
	counted int // lines that its program had written
}

func newWork(t *testing.T, h *host) *work {
	w := &work{host: h, dir: filepath.Join(filepath.Dir(h.home), "ws"), ro: filepath.Join(filepath.Dir(h.home), "ro")}
	for _, err := range []error{os.Mkdir(w.dir, 0o755), os.Mkdir(w.ro, 0o755), os.WriteFile(filepath.Join(w.ro, "given"), []byte("given"), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h.give(w.dir)
	h.give(w.ro)
	r := h.try("instance", "start", "--name", "ws", "--pause-after", "0", "--workspace", w.dir, "--mount", w.ro+":/srv/ro:ro",
		"--mount", "shared:/shared", "--", "python3", "-c", scribe)
	if r.status != 0 {
		t.Fatalf("%+v\n%s", r, h.log())
	}
	return w
}

// in runs a script in the instance's workspace that is to succeed.
func (w *work) in(t *testing.T, script string) string {
	t.Helper()
	r := w.try("exec", "--workdir", "/workspace", "ws", "--", "sh", "-ec", script)
	if r.status != 0 {
		t.Fatalf("%s: %+v", script, r)
	}
	return strings.TrimSpace(r.stdout)
}

func (w *work) put(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	w.give(path)
}

func (w *work) want(t *testing.T, name, text string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(w.dir, name)); err != nil || string(b) != text {
		t.Errorf("%s is %q on the host, %v; want %q", name, b, err, text)
	}
}

func (w *work) guestToHost(t *testing.T) {
	w.in(t, `mkdir -p made/sub; echo one > made/sub/file; chmod 750 made/sub/file; ln -s file made/sub/link; ln made/sub/file hard
		echo two > theirs; chown 33:44 theirs; echo three >> made/sub/file; mv theirs moved`)
	w.want(t, "made/sub/file", "one\nthree\n")
	w.want(t, "hard", "one\nthree\n")
	w.want(t, "moved", "two\n")
	uid := os.Geteuid()
	if w.uid != 0 {
		uid = w.uid
	}
	for _, name := range []string{"made", "made/sub/file", "made/sub/link", "moved"} {
		fi, err := os.Lstat(filepath.Join(w.dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if st := fi.Sys().(*syscall.Stat_t); int(st.Uid) != uid {
			t.Errorf("%s belongs to %d on the host, want %d", name, st.Uid, uid)
		}
	}
	if fi, err := os.Stat(filepath.Join(w.dir, "hard")); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", fi, err)
	}
	if got := w.in(t, "stat -c %u:%g made made/sub/link moved . | tr '\n' ' '"); got != "0:0 0:0 33:44 0:0" {
		t.Errorf("owners in the guest: %s", got)
	}
}

// hostToGuest changes what the guest has just looked at.
func (w *work) hostToGuest(t *testing.T) {
	w.put(t, "same-size", "old")
	w.put(t, "replaced", "old")
	w.put(t, "removed", "old")
	w.put(t, "renamed", "old")
	const look = `for f in same-size replaced removed renamed new-name new; do printf '%s ' "$(cat $f 2>/dev/null || echo none)"; done; ls | grep -c new || true`
	time.Sleep(coherence)
	if got := w.in(t, look); got != "old old old old none none 0" {
		t.Fatalf("before: %s", got)
	}
	w.put(t, "same-size", "new")
	w.put(t, "beside", "new")
	for _, err := range []error{
		os.Rename(filepath.Join(w.dir, "beside"), filepath.Join(w.dir, "replaced")), os.Remove(filepath.Join(w.dir, "removed")),
		os.Rename(filepath.Join(w.dir, "renamed"), filepath.Join(w.dir, "new-name")),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	w.put(t, "new", "new")
	time.Sleep(coherence)
	if got := w.in(t, look); got != "new new none none old new 2" {
		t.Errorf("after: %s", got)
	}
	if got := w.in(t, "stat -c %u:%g new; chmod 600 new"); got != "0:0" {
		t.Errorf("what the host's user made belongs to %s in the guest", got)
	}
}

func (w *work) runs(t *testing.T) {
	if got := w.in(t, "cat /srv/ro/given; ! touch /srv/ro/x 2>&1; ! rm /srv/ro/given 2>&1"); !strings.HasPrefix(got, "given") || !strings.Contains(got, "Read-only file system") {
		t.Errorf("%s", got)
	}
	r := w.try("run", "--workspace", w.dir+":ro", "--workdir", "/workspace", "--", "sh", "-c", "cat new; ! touch x 2>/dev/null && echo refused")
	if r.stdout != "newrefused\n" {
		t.Errorf("%+v", r)
	}
	// What a program leaves behind goes with the VM; what it has written does not.
	r = w.try("run", "--workspace", w.dir, "--", "sh", "-c", "(exec 3>/workspace/left; echo text >&3; exec sleep 600) & sleep .1")
	if r.status != 0 {
		t.Errorf("%+v", r)
	}
	w.want(t, "left", "text\n")
	if list, err := os.ReadDir(w.ro); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

func (w *work) overAPI(t *testing.T) {
	c := w.client()
	if _, err := c.WriteWorkspace(t.Context(), "ws", "api/dir/file", []byte("from the API")); err != nil {
		t.Error(err)
	}
	if got := w.in(t, "cat api/dir/file; stat -c ' %u:%g' api/dir/file; echo more >> api/dir/file"); got != "from the API 0:0" {
		t.Errorf("%s", got)
	}
	if b, err := c.ReadWorkspace(t.Context(), "ws", "api/dir/file"); err != nil || string(b) != "from the APImore\n" {
		t.Errorf("%q, %v", b, err)
	}
	tree, err := c.WorkspaceTree(t.Context(), "ws", "api")
	if want := []api.WorkspaceEntry{{Name: "dir", IsDir: true}}; err != nil || !slices.Equal(tree, want) {
		t.Errorf("%+v, %v", tree, err)
	}
	secret := filepath.Join(filepath.Dir(w.home), "ws-secret")
	if err := os.WriteFile(secret, []byte("s"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.in(t, "ln -s ../ws-secret up; ln -s "+secret+" abs; ln -s / root; ln -s ../../../.. far")
	for _, path := range []string{"up", "abs", "root" + secret, "../ws-secret", "far/etc/passwd"} {
		if b, err := c.ReadWorkspace(t.Context(), "ws", path); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		if _, err := c.WriteWorkspace(t.Context(), "ws", path, []byte("x")); fault.KindOf(err) != fault.Denied {
			t.Errorf("write %s: %v", path, err)
		}
	}
	w.in(t, "rm up abs root far")
	if b, err := os.ReadFile(secret); err != nil || string(b) != "s" {
		t.Errorf("%q, %v", b, err)
	}
}

// goesOn waits until the instance's program has written more into its file, none of
// which may be missing.
func (w *work) goesOn(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(w.dir, "count"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		for i, line := range lines[:len(lines)-1] { // the last may still be on its way
			if line != strconv.Itoa(i) {
				t.Fatalf("line %d is %q", i, line)
			}
		}
		if len(lines) > w.counted+5 {
			w.counted = len(lines)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lines and no more; was %d\n%s", len(lines), w.counted, w.log())
		}
	}
}

// hibernate saves the instance's memory while its program has a file of the workspace
// open, and wakes it; under the same daemon and another.
func (w *work) hibernate(t *testing.T) {
	pid := w.in(t, "pgrep -x python3")
	for range stress(1, 10) {
		for _, between := range []func(){func() {}, func() {
			w.signal(syscall.SIGKILL)
			w.up()
		}} {
			w.goesOn(t)
			if r := w.try("instance", "stop", "--hibernate", "ws"); r.status != 0 {
				t.Fatalf("%+v", r)
			}
			w.put(t, "while-asleep", "text")
			between()
			if r := w.try("instance", "resume", "ws"); r.status != 0 {
				t.Fatalf("%+v\n%s", r, w.log())
			}
			w.goesOn(t)
		}
	}
	if now := w.in(t, "pgrep -x python3; cat while-asleep"); now != pid+"\ntext" {
		t.Errorf("the program was process %s, is %s", pid, now)
	}
	if r := w.try("instance", "pause", "ws"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	w.signal(syscall.SIGKILL) // the daemon that comes finds it paused
	w.up()
	if r := w.try("instance", "resume", "ws"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	w.goesOn(t)
}

// unpack makes an archive and, on a word from the host, unpacks it onto the workspace.
const unpack = `
import os, random, time
r = random.Random(1)
for i in range(DIRS):
    d = "/root/tree/%d" % i
    os.makedirs(d)
    for j in range(20):
        with open("%s/%d" % (d, j), "w") as f: f.write("%d %d\n" % (i, j) * r.randrange(200))
        os.chmod("%s/%d" % (d, j), (0o644, 0o444, 0o755, 0o600)[j % 4])
    os.symlink("1", d + "/link")
    os.link(d + "/2", d + "/hard")
os.chdir("/root")
assert not os.system("tar cf tree.tar tree && cd tree && find . -type f | LC_ALL=C sort | xargs sha256sum > /workspace/sums")
while not os.path.exists("/workspace/go"): time.sleep(.05)
os.chdir("/workspace")
status = os.system("tar xf /root/tree.tar && cd tree && sha256sum -c --quiet ../sums")
open("/workspace/verdict.part", "w").write(str(status))
os.rename("/workspace/verdict.part", "/workspace/verdict")
time.sleep(10**6)
`

// killedDaemon kills the daemon again and again while a guest unpacks an archive onto
// its workspace.
func (w *work) killedDaemon(t *testing.T) {
	dirs := stress(30, 200)
	if r := w.try("instance", "start", "--name", "tar", "--pause-after", "0", "--workspace", "unpacked", "--", "python3", "-c", strings.ReplaceAll(unpack, "DIRS", strconv.Itoa(dirs))); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	dir := filepath.Join(w.home, "data", "workspaces", "unpacked")
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	await := func(what string, when func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !when(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come\n%s", what, w.log())
			}
		}
	}
	await("the archive", func() bool { return exists("sums") })
	if _, err := w.client().WriteWorkspace(t.Context(), "tar", "go", nil); err != nil {
		t.Fatal(err)
	}
	kills := 0
	for next := 0; !exists("verdict"); {
		await("progress", func() bool { return exists("verdict") || exists(fmt.Sprintf("tree/%d", next)) })
		if exists("verdict") {
			break
		}
		w.signal(syscall.SIGKILL)
		w.up()
		next = progress(dir) + 3
		kills++
	}
	t.Logf("killed %d times", kills)
	if b, err := os.ReadFile(filepath.Join(dir, "verdict")); err != nil || string(b) != "0" || kills == 0 {
		t.Errorf("%q, %v, after %d kills", b, err, kills)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "sums"))
	if err != nil {
		t.Fatal(err)
	}
	if got := vmrig.Checksums(t, filepath.Join(dir, "tree")); got != string(sums) {
		t.Error("the tree on the host is another one")
	}
	if n := strings.Count(string(sums), "\n"); n != dirs*21 {
		t.Errorf("%d files", n)
	}
	w.goesOn(t)
	if r := w.try("instance", "delete", "tar"); r.status != 0 {
		t.Errorf("%+v", r)
	}
	if !exists("tree/0/link") {
		t.Error("a named workspace went with its instance")
	}
}

// progress is how many folders there are.
func progress(dir string) int {
	list, _ := os.ReadDir(filepath.Join(dir, "tree")) // none yet
	return len(list)
}

// shared has two instances on one workspace.
func (w *work) shared(t *testing.T) {
	w.in(t, "echo mine > /shared/one")
	if r := w.try("instance", "start", "--name", "two", "--pause-after", "0", "--workspace", "shared", "--", "sleep", "infinity"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	if got := w.execed("two", "sh", "-c", "cat /workspace/one; echo two > /workspace/two; rm /workspace/one"); got != "mine" {
		t.Errorf("the other sees %q", got)
	}
	time.Sleep(coherence)
	if got := w.in(t, "cat /shared/two; ls /shared"); got != "two\ntwo" {
		t.Errorf("%s", got)
	}
	var log strings.Builder
	for line, err := range w.client().Logs(t.Context(), "two", client.LogQuery{Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		log.WriteString(line.Line + "\n")
	}
	if !strings.Contains(log.String(), "shared is in use by ws too") {
		t.Errorf("log: %s", log.String())
	}
}

func (w *work) missing(t *testing.T) {
	r := w.try("run", "--workspace", w.dir+"/none", "--", "true")
	if r.status != 125 || !strings.Contains(r.stderr, "there is no folder "+w.dir+"/none") || !strings.Contains(r.stderr, "mkdir -p") {
		t.Errorf("%+v", r)
	}
}

// deleted deletes instances: what is theirs goes, and what is not stays.
func (w *work) deleted(t *testing.T) {
	w.create("own", []string{"sleep", "infinity"})
	w.execed("own", "sh", "-c", "mkdir -p /workspace/a/b; echo x > /workspace/a/b/c; chmod 0 /workspace/a/b/c /workspace/a/b /workspace/a")
	info, err := w.client().Info(t.Context(), "own")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(info.WorkspaceDir, "a/b/c")); err != nil || !bytes.Equal(b, []byte("x\n")) {
		t.Errorf("%q, %v", b, err)
	}
	list, err := w.client().List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if r := w.try("instance", "delete", i.Handle); r.status != 0 {
			t.Errorf("%+v", r)
		}
	}
	if _, err := os.Lstat(info.WorkspaceDir); err == nil {
		t.Error("the automatic workspace is left")
	}
	if left := w.instances(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	w.want(t, "moved", "two\n")
	if _, err := os.Stat(filepath.Join(w.home, "data/workspaces/shared")); err != nil {
		t.Error(err)
	}
}
