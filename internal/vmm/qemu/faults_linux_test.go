package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/tail"
)

// script is a program that stands in for QEMU.
func script(t *testing.T, body string) string {
	t.Helper()
	// Where the account for VMs can reach it, which the folders of tests are not.
	dir, err := os.MkdirTemp("", "aegis-script-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "qemu")
	text := "#!/bin/sh\ncase \"$1\" in --version) echo 'QEMU emulator version 7.2.1'; exit;; esac\n" + body + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// pvhKernel is as much of a kernel as checkKernel asks for: an ELF header and a
// note with an entry point.
func pvhKernel(t *testing.T) string {
	t.Helper()
	b := make([]byte, 64+56+20)
	copy(b, "\x7fELF\x02\x01\x01")
	put := func(at int, v ...byte) { copy(b[at:], v) }
	put(16, 2)           // executable
	put(18, 62)          // x86-64
	put(20, 1)           // version
	put(32, 64)          // program headers
	put(52, 64)          // size of this header
	put(54, 56)          // size of a program header
	put(56, 1)           // one of them
	put(58, 64)          // size of a section header
	put(64, 4)           // PT_NOTE
	put(64+8, 120)       // offset
	put(64+32, 20)       // size
	put(120, 4, 0, 0, 0) // name
	put(124, 4, 0, 0, 0) // value
	put(128, 0x12, 0, 0, 0, 'X', 'e', 'n', 0, 0, 0, 0, 1)
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func testSpec(t *testing.T) vmm.Spec {
	t.Helper()
	return vmm.Spec{ID: "vm-1", Dir: t.TempDir(), Memory: 64 * size.MiB, VCPUs: 1, Kernel: pvhKernel(t)}
}

func TestOpenFails(t *testing.T) {
	for name, test := range map[string]struct {
		options Options
		kind    fault.Kind
		text    string
	}{
		"missing":  {Options{Binary: "/nonexistent/qemu"}, fault.Unavailable, "/nonexistent/qemu cannot be run"},
		"old":      {Options{Binary: script(t, "") + "-old"}, fault.Unavailable, "QEMU 6.2.0 is too old: AegisVM needs 7.2"},
		"broken":   {Options{Binary: script(t, "") + "-broken"}, fault.Unavailable, "cannot be run"},
		"no accel": {Options{Binary: script(t, ""), Accel: "hvf"}, fault.Invalid, "no accelerator"},
		"no user":  {Options{Binary: script(t, ""), Account: "nobody-at-all"}, fault.NotFound, "account for VMs"},
	} {
		t.Run(name, func(t *testing.T) {
			if plain, ok := strings.CutSuffix(test.options.Binary, "-old"); ok {
				write(t, plain, "#!/bin/sh\necho 'QEMU emulator version 6.2.0'\n")
				test.options.Binary = plain
			}
			if plain, ok := strings.CutSuffix(test.options.Binary, "-broken"); ok {
				write(t, plain, "#!/bin/sh\nexit 1\n")
				test.options.Binary = plain
			}
			if name == "no user" && os.Geteuid() != 0 {
				t.Skip("only root changes users")
			}
			_, err := Open(t.Context(), test.options)
			if fault.KindOf(err) != test.kind || fault.HintOf(err) == "" || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v [%s, %s]", err, fault.KindOf(err), fault.HintOf(err))
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestStartFails starts programs that are not machines: nothing may be left of
// them but their words.
func TestStartFails(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		kind fault.Kind
		text string
	}{
		"error":     {"echo 'qemu-system-x86_64: -M bad: unsupported machine type' >&2; exit 1", fault.Unavailable, "QEMU ended while it started the VM: -M bad: unsupported machine type"},
		"no memory": {"echo \"qemu-system-x86_64: cannot set up guest memory 'ram': Cannot allocate memory\" >&2; exit 1", fault.Exhausted, "no memory for the VM"},
		"full disk": {"echo 'qemu-system-x86_64: No space left on device' >&2; exit 1", fault.Exhausted, "no space for the VM"},
		"killed":    {"kill -9 $$", fault.Unavailable, "signal 9"},
		"silent":    {"exit 3", fault.Unavailable, "QEMU ended with status 3"},
		"at once":   {"exit 0", fault.Unavailable, "QEMU ended while it started the VM"},
		"warnings":  {"echo 'qemu-system-x86_64: warning: Cannot allocate memory' >&2; exec sleep 60", fault.Canceled, "enough"},
		"hangs":     {"exec sleep 60", fault.Canceled, "enough"},
		"orphan":    {"sleep 3 & exit 3", fault.Unavailable, "QEMU ended with status 3"},
		"flood":     {"while :; do echo flood; done", fault.Canceled, "enough"},
	} {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			defer goleak.VerifyNone(t, leaks)
			d, err := Open(t.Context(), Options{Binary: script(t, test.body), Accel: TCG})
			if err != nil {
				t.Fatal(err)
			}
			spec := testSpec(t)
			limit := 20 * time.Second
			if test.kind == fault.Canceled {
				limit = 500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fault.New(fault.Canceled, "enough").WithHint("wait longer"))
			defer cancel()
			_, err = d.Start(ctx, spec, vmm.Boot{})
			if err == nil {
				t.Fatal("it started")
			}
			if fault.KindOf(err) != test.kind || fault.HintOf(err) == "" || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v [%s, %s]", err, fault.KindOf(err), fault.HintOf(err))
			}
			left, err := os.ReadDir(spec.Dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				if fi, err := e.Info(); !strings.HasSuffix(e.Name(), ".log") || err != nil || fi.Size() > tail.MaxFile {
					t.Errorf("%s is left", e.Name())
				}
			}
		})
	}
}

func TestCheckKernel(t *testing.T) {
	elf, err := os.ReadFile(pvhKernel(t))
	if err != nil {
		t.Fatal(err)
	}
	arm := make([]byte, 64)
	copy(arm[56:], "ARM\x64")
	with := func(at int, v byte) string {
		b := append([]byte(nil), elf...)
		b[at] = v
		return string(b)
	}
	for name, test := range map[string]struct{ arch, image, want string }{
		"x86-64":       {"amd64", string(elf), ""},
		"arm64":        {"arm64", string(arm), ""},
		"bzImage":      {"amd64", "MZ" + strings.Repeat("\x00", 600), "not an uncompressed kernel"},
		"empty":        {"amd64", "", "not an uncompressed kernel"},
		"of another":   {"amd64", with(18, 183), "a kernel for EM_AARCH64"},
		"without PVH":  {"amd64", with(128, 0x13), "without a PVH entry point"},
		"x86 on arm64": {"arm64", string(elf), "not an uncompressed arm64 kernel"},
		"short arm64":  {"arm64", "x", "not an uncompressed arm64 kernel"},
	} {
		err := checkKernel(strings.NewReader(test.image), test.arch)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestStaleRecords adopts from folders whose process is not the one recorded: it
// must neither be taken nor killed.
func TestStaleRecords(t *testing.T) {
	d, err := Open(t.Context(), Options{Binary: script(t, ""), Accel: TCG})
	if err != nil {
		t.Fatal(err)
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	pid, began := strconv.Itoa(os.Getpid()), strconv.FormatUint(start+1, 10)
	for name, text := range map[string]string{
		"empty":        "",
		"garbage":      "{",
		"other start":  `{"PID": ` + pid + `, "Start": ` + began + `, "Boot": "` + boot + `"}`,
		"other boot":   `{"PID": ` + pid + `, "Start": ` + strconv.FormatUint(start, 10) + `, "Boot": "x"}`,
		"no process":   `{"PID": 4194303, "Start": 1, "Boot": "` + boot + `"}`,
		"negative":     `{"PID": -1, "Start": 1, "Boot": "` + boot + `"}`,
		"wrong fields": `{"PID": "x"}`,
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, recordName), text)
		write(t, filepath.Join(dir, ctlName), "")
		if _, err := d.Adopt(t.Context(), dir); !errors.Is(err, vmm.ErrEnded) {
			t.Errorf("%s: %v, not ErrEnded", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v left, %v", name, left, err)
		}
	}
}

func TestMapped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uid_map")
	write(t, path, "         0       1000          1\n         1     100000      65536\n")
	for id, want := range map[uint32]bool{0: true, 1: true, 65536: true, 65537: false, 1 << 31: false} {
		if mapped(path, id) != want {
			t.Errorf("%d is mapped: %v", id, !want)
		}
	}
	if !mapped("/nonexistent", 7) {
		t.Error("without namespaces everybody exists")
	}
}
