//go:build integration

package guestlink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qemu"
)

// vm is one booted machine with a link to it.
type vm struct {
	machine vmm.Machine
	link    *Link
	dir     string
}

// recipe returns what a VM of the test home boots, with the harness of this tree.
func recipe(t *testing.T) (vmm.Spec, guestproto.Magic) {
	t.Helper()
	home := paths.Home(os.Getenv("AEGIS_TEST_HOME"))
	k, err := kernel.Installed(home)
	if err != nil {
		if os.Getenv("AEGIS_REQUIRE_VM") == "1" {
			t.Fatalf("VMs are required: %v", err)
		}
		t.Skipf("no VMs here: %v", err)
	}
	own := paths.Home(filepath.Join(t.TempDir(), "home"))
	if err := own.Create(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kernel.json", k.Version} {
		if err := os.Symlink(filepath.Join(home.Kernel(), name), filepath.Join(own.Kernel(), name)); err != nil {
			t.Fatal(err)
		}
	}
	harness := filepath.Join(t.TempDir(), "harness")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", harness, "github.com/xfeldman/aegisvm/cmd/aegis-harness")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	initrd, err := kernel.EnsureInitrd(t.Context(), own, harness)
	if err != nil {
		t.Fatal(err)
	}
	dir := own.Instance("vm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	copyDisk := exec.CommandContext(t.Context(), "cp", "--sparse=always", rootfs.TemplatePath(home), disk)
	if out, err := copyDisk.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Truncate(disk, int64(9*size.GiB)); err != nil { // it is to grow
		t.Fatal(err)
	}
	magic := guestproto.NewMagic()
	return vmm.Spec{
		ID: "link-test", Dir: dir, Memory: 512 * size.MiB, VCPUs: 1, Kernel: k.Image, Initrd: initrd,
		Cmdline: guestproto.MagicArg + "=" + magic.String(),
		Disks: []vmm.Disk{
			{Name: "base", Path: filepath.Join(home.Images(), "base.erofs"), Format: vmm.Raw, ReadOnly: true},
			{Name: "disk", Path: disk, Format: vmm.Raw},
		},
		Network: true,
	}, magic
}

// boot starts a VM; its console is shown when the test fails.
func boot(t *testing.T, spec vmm.Spec) vmm.Machine {
	t.Helper()
	driver, err := qemu.Open(t.Context(), qemu.Options{Accel: qemu.TCG, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := driver.Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			t.Errorf("kill: %v", err)
		}
		if t.Failed() {
			console, _ := os.ReadFile(filepath.Join(spec.Dir, "console.log"))
			t.Logf("console:\n%s", console[max(0, len(console)-8000):])
		}
	})
	return m
}

func startVM(t *testing.T) *vm {
	t.Helper()
	spec, magic := recipe(t)
	begun := time.Now()
	m := boot(t, spec)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	h := hello()
	h.Identity = &guestproto.Identity{
		Instance: "inst-1", Hostname: "box", MachineID: "0123456789abcdef0123456789abcdef",
		BootID: "2b1d2f0e-0000-4000-8000-000000000000",
	}
	l, err := Open(ctx, testLog(t), m, magic, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	t.Logf("VMM start to welcome: %v", time.Since(begun))
	return &vm{machine: m, link: l, dir: spec.Dir}
}

// sh runs a script and returns its output and status.
func (v *vm) sh(t *testing.T, script string, change ...func(*guestproto.Spawn)) (string, int32) {
	t.Helper()
	req := guestproto.Spawn{ID: newExecID(), Command: []string{"/bin/sh", "-c", script}}
	for _, c := range change {
		c(&req)
	}
	a := start(t, v.link, req)
	defer func() { _ = a.Close() }()
	var out bytes.Buffer
	status, err := drain(a, &out, &out)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return out.String(), status
}

var execIDs struct {
	sync.Mutex
	n int
}

func newExecID() guestproto.ExecID {
	execIDs.Lock()
	defer execIDs.Unlock()
	execIDs.n++
	return guestproto.ExecID(fmt.Sprintf("exec-%d", execIDs.n))
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

func sumSlice(b []byte) []byte {
	s := sum(b)
	return s[:]
}

// hasher counts and hashes what is written.
type hasher struct {
	hash.Hash

	n int
}

func newHasher() *hasher { return &hasher{Hash: sha256.New()} }

func (h *hasher) Write(p []byte) (int, error) {
	h.n += len(p)
	return h.Hash.Write(p)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// drop breaks the session as a fault of the pipe would.
func (l *Link) drop() {
	l.mu.Lock()
	sess := l.sess
	l.mu.Unlock()
	if sess != nil {
		sess.end(errSessionEnded)
	}
}
