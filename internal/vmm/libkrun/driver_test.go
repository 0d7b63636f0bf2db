package libkrun

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// programs is a folder for what the tests build.
var programs string

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "aegis-krun-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(code)
}

// buildWorker builds the real worker, as it is shipped.
var buildWorker = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programs, recipe.Program)
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/xfeldman/aegisvm/cmd/aegis-vmm-worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the worker: %w: %s", err, out)
	}
	return path, err
})

func worker(t *testing.T) string {
	t.Helper()
	path, err := buildWorker()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// skipInLab leaves a test to others where a real libkrun is what is tested: the KVM lab has no
// compilers.
func skipInLab(t *testing.T) {
	t.Helper()
	if os.Getenv("AEGIS_TEST_VMM") != "" {
		t.Skip("not a test of a VMM")
	}
}

// stub compiles the library without VMs, with the given things defined.
func stub(t *testing.T, defined ...string) string {
	t.Helper()
	name := "libkrun.so.1.99.0"
	if runtime.GOOS == "darwin" {
		name = "libkrun.1.99.0.dylib"
	}
	path := filepath.Join(t.TempDir(), name)
	args := []string{"-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", "-o", path, "testdata/stub.c"}
	for _, d := range defined {
		args = append(args, "-D"+d)
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	skipInLab(t)
	if out, err := exec.CommandContext(t.Context(), cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("compile the stub (make tools installs a compiler): %v\n%s", err, out)
	}
	return path
}

// openStub returns a driver on a stub. It does without KVM.
func openStub(t *testing.T, library string) *Driver {
	t.Helper()
	d, err := tryStub(t, library)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tryStub(t *testing.T, library string) (*Driver, error) {
	t.Helper()
	account, err := findAccount("")
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{worker: worker(t), account: account, copies: &copies{}, why: "a stub"}
	return d, d.find(t.Context(), library)
}

func stubSpec(t *testing.T) vmm.Spec {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "instance")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, []byte("an initramfs"), 0o600); err != nil {
		t.Fatal(err)
	}
	return vmm.Spec{
		ID: "vm-" + filepath.Base(t.Name()), Dir: dir, Memory: 128 * size.MiB, VCPUs: 2,
		Kernel: testKernel(t), Initrd: initrd, Network: true,
	}
}

// testKernel makes a file that passes for a kernel, and that nobody else may read.
func testKernel(t *testing.T) string {
	t.Helper()
	b := make([]byte, 64)
	if goarch == "arm64" {
		binary.LittleEndian.PutUint32(b[56:], 0x644d5241)
	} else {
		copy(b, "\x7fELF\x02\x01\x01")
		binary.LittleEndian.PutUint16(b[16:], 2)  // ET_EXEC
		binary.LittleEndian.PutUint16(b[18:], 62) // EM_X86_64
		binary.LittleEndian.PutUint32(b[20:], 1)
		binary.LittleEndian.PutUint16(b[52:], 64) // size of this header
	}
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func harnessOn(t *testing.T, library string) vmmtest.Harness {
	t.Helper()
	return vmmtest.Harness{
		Driver: openStub(t, library),
		NewSpec: func(t *testing.T) vmm.Spec {
			t.Helper()
			return stubSpec(t)
		},
		Lose: func(t *testing.T, m vmm.Machine) vmm.Driver {
			t.Helper()
			m.(*Machine).Release()
			return openStub(t, library)
		},
		Strike:   strike,
		Files:    true,
		Keeps:    "aegis-copy",
		Patience: 20 * time.Second,
	}
}

func strike(t *testing.T, m vmm.Machine) {
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
}

// TestContract runs the suite on the real worker and a library that plays the guest.
func TestContract(t *testing.T) {
	library := stub(t)
	vmmtest.Run(t, func(t *testing.T) vmmtest.Harness {
		t.Helper()
		return harnessOn(t, library)
	})
}

// calls returns what a stub has noted of the process, in order.
func calls(t *testing.T, library string, pid int) []string {
	t.Helper()
	b, err := os.ReadFile(library + ".calls")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, strconv.Itoa(pid)+" "); ok {
			lines = append(lines, strings.TrimSuffix(rest, "\n"))
		}
	}
	return lines
}

func start(t *testing.T, d *Driver, spec vmm.Spec) (*Machine, int) {
	t.Helper()
	started, err := d.Start(t.Context(), spec, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	m := started.(*Machine)
	t.Cleanup(func() {
		if err := m.Kill(context.Background()); err != nil && !errors.Is(err, errReleased) {
			t.Error(err)
		}
	})
	u, err := m.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return m, u.PID
}

// TestCalls compares all that the library is told of a VM.
func TestCalls(t *testing.T) {
	library := stub(t)
	d := openStub(t, library)
	spec := stubSpec(t)
	spec.Cmdline = "aegis.magic=00ff"
	base, disk := filepath.Join(t.TempDir(), "base image"), filepath.Join(t.TempDir(), "disk")
	for _, path := range []string{base, disk} {
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec.Disks = []vmm.Disk{{Name: "base", Path: base, Format: vmm.Raw, ReadOnly: true}, {Name: "disk", Path: disk, Format: vmm.Raw}}
	m, pid := start(t, d, spec)
	// The guest speaks once the last call has been made.
	<-m.console.Begun()

	format := "1"
	if goarch == "arm64" {
		format = "0"
	}
	want := []string{
		"init_log 2 2 2 1",
		"create_ctx",
		"set_vm_config 7 2 128",
		"set_kernel 7 " + format + " initrd=yes " + commandLine(&spec),
		"disable_implicit_console 7",
		"disable_implicit_vsock 7",
		"add_serial_console_default 7 -1 blocking=0",
		"add_virtio_console_multiport 7",
		"add_console_port_inout 7 3 aegis.ctl same=1",
		"add_disk 7 base " + base + " 1",
		"add_disk 7 disk " + disk + " 0",
		"add_net_unixstream 7 path=NULL blocking=1 02:61:65:67:69:73 0x182 0",
	}
	who := "other"
	if d.account != nil {
		want = append(want, "setgid 7", "setuid 7")
	} else if os.Getuid() == 0 {
		who = "root" // of a container that has no other
	}
	want = append(want, "start_enter 7 uid="+who+" kernel=64 initrd=12")
	if got := calls(t, library, pid); !slices.Equal(got, want) {
		t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(commandLine(&spec), " aegis.disks=base,disk aegis.magic=00ff") {
		t.Errorf("command line %q", commandLine(&spec))
	}
	for _, arg := range commandLineOf(t, pid) {
		if strings.Contains(arg, "00ff") {
			t.Errorf("a secret stands in an argument: %q", arg)
		}
	}
}

func commandLineOf(t *testing.T, pid int) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	if errors.Is(err, exec.ErrNotFound) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(b), "\x00")
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// TestBareSpec is a VM without all that can be left out.
func TestBareSpec(t *testing.T) {
	library := stub(t)
	spec := stubSpec(t)
	spec.Initrd, spec.Network, spec.VCPUs = "", false, 0
	m, pid := start(t, openStub(t, library), spec)
	<-m.console.Begun()
	got := strings.Join(calls(t, library, pid), "\n")
	if strings.Contains(got, "add_net") || strings.Contains(got, "add_disk") ||
		!strings.Contains(got, "initrd=no") || !strings.Contains(got, "set_vm_config 7 1 128") {
		t.Errorf("calls:\n%s", got)
	}
}

// TestLibraries is about libraries that will not do.
func TestLibraries(t *testing.T) {
	text := filepath.Join(t.TempDir(), "libkrun.so.1")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, path, want string }{
		{"old", stub(t, "OLD"), "is too old: it lacks krun_add_console_port_inout"},
		{"bare", stub(t, "BARE"), "was built without: net"},
		{"missing", filepath.Join(t.TempDir(), "libkrun.so.1"), "libkrun cannot be loaded"},
		{"text", text, "libkrun cannot be loaded"},
	} {
		_, err := tryStub(t, c.path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
			continue
		}
		if fault.KindOf(err) != fault.Unavailable || fault.BlameOf(err) != fault.Host || fault.HintOf(err) == "" {
			t.Errorf("%s: kind, blame or hint of %#v", c.what, err)
		}
		t.Logf("%s: %v (%s)", c.what, err, fault.HintOf(err))
	}
	d := openStub(t, stub(t))
	if v := d.Info().Version; v != "1.99.0" {
		t.Errorf("version %q", v)
	}
}

// TestRefused is a VM that libkrun does not start: that is the machine's end, or
// Start's error, whichever is seen first.
func TestRefused(t *testing.T) {
	spec := stubSpec(t)
	m, err := openStub(t, stub(t, "REFUSES")).Start(t.Context(), spec, vmm.Boot{})
	var said string
	if err != nil {
		said = err.Error()
		if fault.KindOf(err) != fault.Unavailable || fault.HintOf(err) == "" {
			t.Errorf("kind or hint of %#v", err)
		}
	} else {
		e, err := m.Wait(t.Context())
		if err != nil || e.Reason != vmm.Died {
			t.Fatalf("Wait = %v, %v", e, err)
		}
		said = e.String()
	}
	if !strings.Contains(said, "no such device") || !strings.Contains(said, "krun_start_enter: invalid argument") {
		t.Errorf("said %q", said)
	}
}

// TestLayers is about disks that another VMM has forked.
func TestLayers(t *testing.T) {
	d := openStub(t, stub(t))
	spec := stubSpec(t)
	spec.Disks = []vmm.Disk{{Name: "disk", Path: spec.Kernel, Format: vmm.QCOW2}}
	_, err := d.Start(t.Context(), spec, vmm.Boot{})
	if fault.KindOf(err) != fault.Conflict || !strings.Contains(fault.HintOf(err), "AEGIS_VMM=qemu") {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
}

// TestUnrecorded adopts a machine whose daemon died before it had written down which
// process it is.
func TestUnrecorded(t *testing.T) {
	library := stub(t)
	d := openStub(t, library)
	spec := stubSpec(t)
	m, pid := start(t, d, spec)
	if err := m.folder.write(record{}); err != nil {
		t.Fatal(err)
	}
	if err := m.folder.record.Truncate(0); err != nil {
		t.Fatal(err)
	}
	m.Release()
	again, err := openStub(t, library).Adopt(t.Context(), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := again.Usage(); err != nil || u.PID != pid {
		t.Errorf("Usage = %+v, %v, want process %d", u, err, pid)
	}
	if err := again.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestReused does not adopt a process that is another's.
func TestReused(t *testing.T) {
	d := openStub(t, stub(t))
	spec := stubSpec(t)
	m, _ := start(t, d, spec)
	r := record{PID: os.Getpid(), Start: 1, Boot: "another"}
	if err := m.folder.write(r); err != nil {
		t.Fatal(err)
	}
	if _, life, err := m.folder.process(t.Context()); !errors.Is(err, errNoProcess) {
		closeConn(life)
		t.Errorf("another boot: %v", err)
	}
	r.Boot, _ = bootID()
	if err := m.folder.write(r); err != nil {
		t.Fatal(err)
	}
	if _, life, err := m.folder.process(t.Context()); !errors.Is(err, errNoProcess) {
		closeConn(life)
		t.Errorf("another start: %v", err)
	}
}

// TestFramesSurvive cuts a connection in the middle of a frame: the card gets whole
// ones, or the stub aborts.
func TestFramesSurvive(t *testing.T) {
	m, _ := start(t, openStub(t, stub(t)), stubSpec(t))
	for range 10 {
		c, err := m.AttachNetwork(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		frame := append(binary.BigEndian.AppendUint32(nil, 1500), make([]byte, 700)...)
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	c, err := m.AttachNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is about something else
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, 65534), make([]byte, 65534)...)); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(c)
	for range 3 {
		var length [4]byte
		if _, err := io.ReadFull(from, length[:]); err != nil {
			t.Fatal(err)
		}
		if n := binary.BigEndian.Uint32(length[:]); n != 60 {
			t.Fatalf("a frame of %d bytes", n)
		}
		if _, err := io.CopyN(io.Discard, from, 60); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.gone(); err != nil {
		t.Error(err)
	}
}

// TestDaemonLoadsNothing shows that only the worker is linked with what loads libraries.
func TestDaemonLoadsNothing(t *testing.T) {
	skipInLab(t)
	for program, want := range map[string]bool{"aegisd": false, "aegis": false, recipe.Program: true} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/xfeldman/aegisvm/cmd/"+program).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(out), "github.com/ebitengine/purego"); got != want {
			t.Errorf("%s is linked with purego: %v", program, got)
		}
	}
}
