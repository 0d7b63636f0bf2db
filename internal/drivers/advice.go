package drivers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/doctor"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Accelerator tells how machines would run, and what would be better. Its signature is
// that of doctor.Options.Accel, but for the settings.
func Accelerator(ctx context.Context, conf *config.Config) (doctor.Accelerator, error) {
	d, over, err := choose(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		return doctor.Accelerator{}, err
	}
	info := d.Info()
	a := doctor.Accelerator{
		VMM: info.Name + " " + info.Version, Name: info.Accel, Isolation: string(info.Isolation), Why: info.Why,
	}
	if runtime.GOOS == "linux" {
		_, kvm := os.Stat(kvmDevice)
		a.Better = better(&info, over, conf, kvm, mayUse(kvmDevice))
	}
	return a, nil
}

const kvmDevice = "/dev/kvm"

// mayUse returns why this user may not use a device, or nil.
func mayUse(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// better says what would serve better than the driver that was chosen, the most first. kvm
// and use tell of the device of hardware virtualization: whether it is there, and may be
// used.
func better(is *vmm.Info, over []passed, conf *config.Config, kvm, use error) []doctor.Advice {
	var all []doctor.Advice
	if is.Isolation != vmm.Hardware {
		all = append(all, hardware(is, conf, kvm, use))
	}
	for _, p := range over {
		switch {
		case p.err != nil:
			all = append(all, doctor.Advice{
				What: fmt.Sprintf("%s, which is preferred, is not used: %v", p.name, p.err), How: fault.HintOf(p.err),
			})
		case is.Isolation == vmm.Hardware:
			// Without it the program would be of no use.
			all = append(all, doctor.Advice{
				What: string(p.name) + ", which is preferred where hardware virtualization works, is not installed",
				How:  "put its release into PATH, or set cloud_hypervisor_sha256 and run: aegis setup",
			})
		}
	}
	return all
}

// hardware says how guests would run on the CPU itself instead of being emulated.
func hardware(is *vmm.Info, conf *config.Config, kvm, use error) doctor.Advice {
	a := doctor.Advice{What: "hardware virtualization (KVM) runs guests many times faster, and isolates them by hardware"}
	switch {
	case conf.Accel == config.AccelTCG:
		a.How = "emulation was asked for; leave the setting accel at auto: unset AEGIS_ACCEL"
	case errors.Is(kvm, fs.ErrNotExist):
		a.What += "; this host has none"
		a.How = "turn it on in the firmware, or, in a VM, as nested virtualization; then: sudo modprobe kvm-intel || sudo modprobe kvm-amd"
	case errors.Is(use, fs.ErrPermission):
		a.What += "; this user may not use it"
		a.How = "sudo usermod -aG kvm $USER, and log in again"
	default:
		a.What += "; here it does not work: " + is.Why
		a.How = "use a host whose KVM runs a stock kernel; after a change of the host, its restart makes AegisVM try again"
	}
	return a
}
