//go:build integration

package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// broken is a QEMU that notes each start on KVM and then does what is said instead. On TCG it
// is what it is.
const broken = `#!/bin/sh
trials=%[1]s qemu=%[2]s
accel=
for arg; do
	shift
	[ "$accel" = -accel ] && [ "$arg" = kvm ] && { arg=tcg; echo trial >> "$trials"; %[3]s; }
	accel=$arg
	[ "$arg" = host ] && arg=max
	set -- "$@" "$arg"
done
exec "$qemu" "$@" $stopped
`

// TestBrokenKVM: a KVM whose device opens but which runs no guest costs seconds, once, and
// what is found is told. On hosts that have such a KVM this is what TestProbe sees.
func TestBrokenKVM(t *testing.T) {
	g := requireVM(t)
	qemu, err := exec.LookPath(Program())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ does, why string }{
		"hangs":  {"stopped=-S", "says nothing within " + firstWord.String()},
		"cannot": {"echo 'ioctl(KVM_CREATE_VM) failed: 19 No such device' >&2; exit 1", "KVM_CREATE_VM"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			trials, program := filepath.Join(dir, "trials"), filepath.Join(dir, "qemu")
			script := fmt.Sprintf(broken, trials, qemu, test.does)
			if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			o := Options{Binary: program, Accel: Auto, Kernel: g.kernel, Verdicts: filepath.Join(dir, "verdicts"), kvm: os.DevNull}
			if os.Geteuid() == 0 {
				o.Account = "root" // which may enter this test's folder
			}
			begin := time.Now()
			for range 3 { // daemons that come one after the other
				info := openDriver(t, o).Info()
				if info.Accel != string(TCG) || info.Isolation != vmm.Emulated || !strings.Contains(info.Why, test.why) {
					t.Errorf("%+v; want emulation, as %s", info, test.why)
				}
			}
			took := time.Since(begin)
			t.Logf("three daemons in %v", took)
			if limit := startTimeout + firstWord + killTimeout; took > limit {
				t.Errorf("the fall-back took %v, more than %v", took, limit)
			}
			if b, err := os.ReadFile(trials); err != nil || strings.Count(string(b), "trial") != 1 {
				t.Errorf("trials: %q, %v; want one", b, err)
			}
		})
	}
}
