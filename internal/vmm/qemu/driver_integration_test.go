//go:build integration

package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// ground is the kernel and the initramfs with the suite's guest.
type ground struct{ kernel, initrd string }

var testGround = sync.OnceValues(func() (ground, error) {
	if k := os.Getenv(kernelEnv); k != "" { // made before, as for a run as another user
		return ground{kernel: k, initrd: os.Getenv(initrdEnv)}, nil
	}
	home := paths.Home(os.Getenv("AEGIS_TEST_HOME"))
	k, err := kernel.Installed(home)
	if err != nil {
		return ground{}, err
	}
	// A home of its own: the initramfs of a test is nothing to keep beside the real one.
	dir, err := os.MkdirTemp("", "aegis-qemu-test-")
	if err != nil {
		return ground{}, err
	}
	scratch = dir
	own := paths.Home(dir)
	if err := own.Create(); err != nil {
		return ground{}, err
	}
	for _, name := range []string{"kernel.json", k.Version} {
		if err := os.Symlink(filepath.Join(home.Kernel(), name), filepath.Join(own.Kernel(), name)); err != nil {
			return ground{}, err
		}
	}
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "github.com/xfeldman/aegisvm/internal/vmm/vmmtest/guestinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return ground{}, err
	}
	initrd, err := kernel.EnsureInitrd(context.Background(), own, init)
	if err != nil {
		return ground{}, err
	}
	// The initramfs as it is, private, and the kernel as a file that all may read.
	image, err := os.ReadFile(k.Image)
	if err != nil {
		return ground{}, err
	}
	path := filepath.Join(dir, "vmlinux")
	return ground{kernel: path, initrd: initrd}, os.WriteFile(path, image, 0o644)
})

var scratch string

// daemonEnv makes the test binary a daemon that starts a machine in the folder it
// names and then only lives.
const (
	daemonEnv = "AEGIS_QEMU_TEST_DAEMON"
	kernelEnv = "AEGIS_QEMU_TEST_KERNEL"
	initrdEnv = "AEGIS_QEMU_TEST_INITRD"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(daemonEnv); dir != "" {
		os.Exit(runDaemon(dir))
	}
	code := m.Run()
	if scratch != "" {
		_ = os.RemoveAll(scratch)
	}
	os.Exit(code)
}

// requireVM returns what VMs boot. Without it a test is skipped, or fails where
// VMs are required.
func requireVM(t *testing.T) ground {
	t.Helper()
	g, err := testGround()
	if err != nil {
		if os.Getenv("AEGIS_REQUIRE_VM") == "1" {
			t.Fatalf("VMs are required: %v", err)
		}
		t.Skipf("no VMs here: %v", err)
	}
	return g
}

func openDriver(t *testing.T, o Options) *Driver {
	t.Helper()
	if o.Accel == "" {
		o.Accel = cmp.Or(Accel(os.Getenv("AEGIS_TEST_ACCEL")), TCG) // as the KVM lab has it
	}
	if o.Binary == "" {
		o.Binary = os.Getenv("AEGIS_QEMU") // as users name another one than the host's
	}
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newSpec(t *testing.T, g ground) vmm.Spec {
	t.Helper()
	// Private, as the instances' folders are: VMMs have no right to enter it.
	dir := filepath.Join(t.TempDir(), "instance")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return vmm.Spec{
		ID: "vm-" + filepath.Base(t.Name()), Dir: dir, Memory: 128 * size.MiB, VCPUs: 1,
		Kernel: g.kernel, Initrd: g.initrd, Network: true,
	}
}

func harness(t *testing.T, g ground) vmmtest.Harness {
	t.Helper()
	d := openDriver(t, Options{})
	return vmmtest.Harness{
		Keeps:  "aegis-copy",
		Driver: d,
		NewSpec: func(t *testing.T) vmm.Spec {
			t.Helper()
			return newSpec(t, g)
		},
		Lose: func(t *testing.T, m vmm.Machine) vmm.Driver {
			t.Helper()
			m.(*Machine).Release()
			return openDriver(t, Options{})
		},
		Strike: func(t *testing.T, m vmm.Machine) {
			t.Helper()
			u, err := m.Usage()
			if err != nil {
				t.Fatal(err)
			}
			p, err := os.FindProcess(u.PID)
			if err != nil {
				t.Fatal(err)
			}
			_ = p.Kill()
			_ = p.Release()
		},
		Files:    true,
		Patience: 60 * time.Second,
	}
}

func TestConformance(t *testing.T) {
	g := requireVM(t)
	vmmtest.Run(t, func(t *testing.T) vmmtest.Harness {
		t.Helper()
		return harness(t, g)
	})
}

func TestProbe(t *testing.T) {
	g := requireVM(t)
	kvm, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		t.Logf("no KVM to try: %v", err)
	}
	_ = kvm.Close()
	verdicts := filepath.Join(t.TempDir(), "verdicts")
	var took [2]time.Duration
	var info [2]vmm.Info
	for i := range took {
		begin := time.Now()
		d := openDriver(t, Options{Accel: Auto, Kernel: g.kernel, Verdicts: verdicts})
		took[i], info[i] = time.Since(begin), d.Info()
	}
	t.Logf("%v, then %v: %+v", took[0], took[1], info[0])
	if info[0] != info[1] {
		t.Errorf("first %+v, then %+v", info[0], info[1])
	}
	if limit := firstWord + lastWord + killTimeout; took[0] > limit {
		t.Errorf("the trial took %v, more than %v", took[0], limit)
	}
	if took[1] > 2*time.Second {
		t.Errorf("a verdict that is known took %v", took[1])
	}
}

// TestTrial makes the trial itself as this user, who may have rights on /dev/kvm
// that the VMMs' account has not. Whatever this host's KVM is, the trial ends.
func TestTrial(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	d.account = nil
	begin := time.Now()
	v, err := d.tryKVM(t.Context(), g.kernel)
	t.Logf("%+v, %v after %v", v, err, time.Since(begin))
	if err != nil || v.Why == "" {
		t.Error("no verdict")
	}
}

// await reads a machine's console until it has what is wanted.
func await(t *testing.T, dir, want string) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "console.log"))
		if err == nil && strings.Contains(string(b), want) {
			return
		}
	}
	t.Fatalf("%q is not on the console", want)
}

func makeDisk(t *testing.T, name string, bytes int64, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, bytes), os.Chmod(path, mode))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func kill(t *testing.T, m vmm.Machine) {
	t.Helper()
	if err := m.Kill(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestDisks starts two machines on one base. Their disks are private to this user,
// which the VMM is not.
func TestDisks(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	base := makeDisk(t, "base", 1<<20, 0o400)
	var specs [2]vmm.Spec
	for i := range specs {
		specs[i] = newSpec(t, g)
		specs[i].Disks = []vmm.Disk{
			{Name: "base", Path: base, Format: vmm.Raw, ReadOnly: true},
			{Name: "disk", Path: makeDisk(t, "disk", 8<<20, 0o600), Format: vmm.Raw},
		}
		m, err := d.Start(t.Context(), specs[i], vmm.Boot{})
		if err != nil {
			t.Fatal(err)
		}
		defer kill(t, m)
	}
	for _, s := range specs {
		await(t, s.Dir, "disk base: 2048 sectors, read-only 1")
		await(t, s.Dir, "disk disk: 16384 sectors, read-only 0")
	}
	again := newSpec(t, g)
	again.Disks = specs[0].Disks
	_, err := d.Start(t.Context(), again, vmm.Boot{})
	if fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" {
		t.Errorf("a disk that another machine writes: %v (%s)", err, fault.HintOf(err))
	}
	t.Log(err)
}

// TestConfinement looks at what a VMM process is.
func TestConfinement(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	spec := newSpec(t, g)
	m, err := d.Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	defer kill(t, m)
	u, err := m.Usage()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", u.PID))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(status)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			fields[k] = strings.Join(strings.Fields(v), " ")
		}
	}
	want := map[string]string{"Seccomp": "2", "NoNewPrivs": "1"}
	if os.Geteuid() == 0 {
		id, _, _ := strings.Cut(fields["Uid"], " ")
		if n, err := strconv.Atoi(id); err != nil || n == 0 || d.account.own && n < firstOwn || !d.account.own && n != int(d.account.uid) {
			t.Errorf("a root daemon's VMM is user %s", fields["Uid"])
		}
		want["Uid"] = strings.Repeat(id+" ", 3) + id
		want["Groups"] = ""
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		want[set] = "0000000000000000"
	}
	for k, v := range want {
		if fields[k] != v {
			t.Errorf("%s is %q, want %q", k, fields[k], v)
		}
	}
	if sid, err := unix.Getsid(u.PID); err != nil || sid != u.PID {
		t.Errorf("session %d of process %d, %v", sid, u.PID, err)
	}
	fi, err := os.Stat(spec.Dir)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", fi.Mode(), err)
	}
	checkLimits(t, u.PID)
}

// checkLimits looks at the limits of a VMM: those that this process may set for others.
func checkLimits(t *testing.T, pid int) {
	t.Helper()
	var core, files, fileSize unix.Rlimit
	for what, limit := range map[int]*unix.Rlimit{unix.RLIMIT_CORE: &core, unix.RLIMIT_NOFILE: &files, unix.RLIMIT_FSIZE: &fileSize} {
		if err := unix.Prlimit(pid, what, nil, limit); err != nil {
			t.Logf("limits cannot be read here, nor set: %v", err)
			return
		}
	}
	if core.Max != 0 || files.Max != maxFiles || fileSize.Max > uint64(20*size.GiB) {
		t.Errorf("core %d, files %d, file size %d", core.Max, files.Max, fileSize.Max)
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil || strings.TrimSpace(string(score)) != strconv.Itoa(oomScore) {
		t.Errorf("the kernel's OOM killer has it at %s, %v", score, err)
	}
}

func runDaemon(dir string) int {
	d, err := Open(context.Background(), Options{Binary: os.Getenv("AEGIS_QEMU"), Accel: cmp.Or(Accel(os.Getenv("AEGIS_TEST_ACCEL")), TCG)})
	if err == nil {
		_, err = d.Start(context.Background(), vmm.Spec{
			ID: "orphan", Dir: dir, Memory: 128 * size.MiB, Network: true,
			Kernel: os.Getenv(kernelEnv), Initrd: os.Getenv(initrdEnv),
		}, vmm.Boot{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("started")
	select {}
}

// orphan starts a machine in another process and kills that.
func orphan(t *testing.T, g ground) vmm.Spec {
	t.Helper()
	spec := newSpec(t, g)
	daemon := exec.Command(os.Args[0])
	daemon.Env = append(os.Environ(), daemonEnv+"="+spec.Dir, kernelEnv+"="+g.kernel, initrdEnv+"="+g.initrd)
	daemon.Stderr = os.Stderr
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	_, scanned := fmt.Fscanln(out, new(string))
	_ = daemon.Process.Kill()
	_ = daemon.Wait()
	if scanned != nil {
		t.Fatalf("the daemon did not start a machine: %v", scanned)
	}
	return spec
}

// TestDaemonKilled adopts machines whose daemon was killed, some of them before it
// could write down which process it had started.
func TestDaemonKilled(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	for name, spoil := range map[string]func(path string) error{
		"with a record":       func(string) error { return nil },
		"without a process":   forgetProcess,
		"without any record":  func(path string) error { return os.Truncate(path, 0) },
		"with half of a word": func(path string) error { return os.Truncate(path, 7) },
	} {
		t.Run(name, func(t *testing.T) {
			spec := orphan(t, g)
			if err := spoil(filepath.Join(spec.Dir, recordName)); err != nil {
				t.Fatal(err)
			}
			adopted(t, d, spec, !strings.Contains(name, "any") && !strings.Contains(name, "half"))
		})
	}
}

// forgetProcess makes a record what it is before there is a process.
func forgetProcess(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	if b, err = json.Marshal(record{Model: r.Model}); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// adopted adopts a machine, and saves it if that can be.
func adopted(t *testing.T, d *Driver, spec vmm.Spec, savable bool) {
	t.Helper()
	m, err := d.Adopt(t.Context(), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	await(t, spec.Dir, "guest is up")
	answers(t, m)
	u, err := m.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved, mem, err := m.(vmm.Saver).Save(t.Context(), vmm.Dest{Dir: t.TempDir()})
	if savable != (err == nil) {
		t.Errorf("save: %v", err)
	}
	kill(t, m)
	// Its parent is now init, which may take its time to reap it.
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", u.PID)); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("process %d is left: %s", u.PID, stat)
	}
	if left, err := filepath.Glob(filepath.Join(spec.Dir, "*")); err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v", left, err)
	}
	if mem == nil {
		return
	}
	defer mem.Close() //nolint:errcheck // a test's
	spec.VCPUs = 0    // as it was started
	clone := restored(t, d, spec, vmm.Restore{Saved: saved, Memory: mem})
	if err := clone.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	answers(t, clone)
}

// TestHung adopts a machine whose QEMU does not answer.
func TestHung(t *testing.T) {
	g := requireVM(t)
	d := openDriver(t, Options{})
	spec := newSpec(t, g)
	m, err := d.Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := m.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(u.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	m.(*Machine).Release()
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
	defer cancel()
	if _, err := d.Adopt(ctx, spec.Dir); !errors.Is(err, cause) {
		t.Errorf("adopt with a context that ends: %v", err)
	}
	begin := time.Now()
	d.answer = time.Second
	if _, err := d.Adopt(t.Context(), spec.Dir); !errors.Is(err, vmm.ErrEnded) {
		t.Errorf("adopt: %v, not ErrEnded", err)
	}
	t.Logf("given up after %v", time.Since(begin))
	// Its parent, this process, has given it up; it is reaped none the less.
	for end := time.Now().Add(5 * time.Second); unix.Kill(u.PID, 0) == nil; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d is left", u.PID)
		}
	}
}

// BenchmarkBoot tells what a machine needs from Start to its first answer.
func BenchmarkBoot(b *testing.B) {
	g, err := testGround()
	if err != nil {
		b.Skip(err)
	}
	d, err := Open(b.Context(), Options{Binary: os.Getenv("AEGIS_QEMU"), Accel: TCG})
	if err != nil {
		b.Fatal(err)
	}
	var started time.Duration
	for b.Loop() {
		begin := time.Now()
		m, err := d.Start(b.Context(), vmm.Spec{
			ID: "bench", Dir: b.TempDir(), Memory: 512 * size.MiB, VCPUs: 1, Kernel: g.kernel, Initrd: g.initrd, Network: true,
			Cmdline: os.Getenv("AEGIS_QEMU_TEST_CMDLINE"),
		}, vmm.Boot{})
		if err != nil {
			b.Fatal(err)
		}
		started += time.Since(begin)
		conn, err := m.DialGuest(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = conn.Close()
		if err := m.Kill(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(started.Milliseconds())/float64(b.N), "start-ms")
}
