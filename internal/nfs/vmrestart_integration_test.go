//go:build integration

package nfs_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/test/vmrig"
)

// makeTree makes an archive in the guest, and the checksums of what is in it.
const makeTree = `
import os
for i in range(30):
    d = "/tmp/tree/dir-%d" % i
    os.makedirs(d)
    for j in range(20):
        path = "%s/file-%d" % (d, j)
        with open(path, "w") as f:
            f.write("content %d %d\n" % (i, j) * 50)
        os.chmod(path, (0o644, 0o444, 0o755, 0o600)[j % 4])
    os.symlink("file-1", d + "/link")
    os.link(d + "/file-2", d + "/hard")
os.chdir("/tmp")
os.system("tar cf tree.tar tree && cd tree && find . -type f | LC_ALL=C sort | xargs sha256sum > ../sums")
`

// workOnTree does with the archive what must not be done twice.
const workOnTree = `cd /workspace
tar xf /tmp/tree.tar
mkdir moved
for d in tree/*; do mv $d moved/; done
for d in moved/dir-1?; do for f in $d/file-*; do mv $f $f.x; ln $f.x $f; rm $f.x; done; done
cp -a moved copy
rm -r copy
mv moved/* tree/
rmdir moved
cd tree && sha256sum -c --quiet /tmp/sums && find . | wc -l`

// TestVMKilledServer kills the server again and again, in the middle of whatever it is
// doing, while a guest unpacks an archive, moves files about and removes them. Nothing
// of that fails, and the tree is right.
func TestVMKilledServer(t *testing.T) {
	v := startVM(t)
	exe, dir := program(t, true)
	journal := filepath.Join(filepath.Dir(exe), "journal")
	if err := os.WriteFile(journal, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(journal, 0o666); err != nil {
		t.Fatal(err)
	}
	server := startExternal(t, exe, dir, journal, true)
	r := v.relay(t, server.addr)
	v.mount(t, guestproto.MountPoint{Export: "/", Target: "/workspace"})
	if out, status := v.start(t, "python3", "-c", makeTree)(); status != 0 {
		t.Fatal(out)
	}
	wait := v.start(t, "sh", "-ec", workOnTree)
	over := make(chan struct{})
	var out string
	var status int32
	go func() {
		defer close(over)
		out, status = wait()
	}()
	kills := 0
	for going := true; going; {
		select {
		case <-over:
			going = false
		case <-time.After(time.Duration(200+rand.IntN(600)) * time.Millisecond):
			server.kill()
			server = startExternal(t, exe, dir, journal, true)
			r.to(server.addr)
			kills++
		}
	}
	t.Logf("killed %d times", kills)
	if status != 0 || !strings.HasSuffix(out, "691\n") {
		t.Errorf("status %d: %s", status, out)
	}
	if kills < 3 {
		t.Error("too few: the test shows nothing")
	}
	if onHost := vmrig.Checksums(t, filepath.Join(dir, "tree")); onHost != v.must(t, "cat /tmp/sums") {
		t.Error("the tree on the host is another one")
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("left: %v, %v", list, err)
	}
}
