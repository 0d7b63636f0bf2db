// Package drivers is the list of AegisVM's drivers, and the choice between them. It
// is wiring, apart from package daemon because `aegis doctor` asks the same
// question without a daemon.
package drivers

import (
	"context"
	"log/slog"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/cloudhypervisor"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun"
	"github.com/xfeldman/aegisvm/internal/vmm/qemu"
)

// open is how each driver is opened.
var open = map[config.VMM]opener{
	config.VMMQEMU:            openQEMU,
	config.VMMCloudHypervisor: openCloudHypervisor,
	config.VMMLibkrun:         openLibkrun,
}

// opener opens a driver. It fails where the host cannot run it.
type opener func(context.Context, *config.Config, *slog.Logger) (vmm.Driver, error)

// Open opens the driver that the settings ask for. It may boot a kernel, once for
// each boot of the host and driver, to learn whether hardware virtualization works.
func Open(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, error) {
	d, _, err := choose(ctx, conf, log)
	return d, err
}

// guestKernel returns the kernel that hardware virtualization is tried with, or "":
// without one nothing can be tried; set-up tells, and so does the first run.
func guestKernel(conf *config.Config) string {
	k, err := kernel.Installed(conf.Home)
	if err != nil {
		return ""
	}
	return k.Image
}

func openLibkrun(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, error) {
	if conf.Accel == config.AccelTCG {
		return nil, fault.New(fault.Invalid, "libkrun cannot emulate, as AEGIS_ACCEL=tcg asks for").WithHint("AEGIS_VMM=qemu can")
	}
	d, err := libkrun.Open(ctx, libkrun.Options{
		Library: conf.Libkrun, Kernel: guestKernel(conf), Trust: conf.Accel == config.AccelKVM, Account: conf.VMUser, Log: log,
	})
	if err != nil {
		return nil, err // not a nil *Driver in a non-nil interface
	}
	return d, nil
}

func openQEMU(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, error) {
	d, err := qemu.Open(ctx, qemu.Options{
		Binary: conf.QEMU, Accel: qemu.Accel(conf.Accel), Kernel: guestKernel(conf), Account: conf.VMUser, Log: log,
	})
	if err != nil {
		return nil, err // not a nil *Driver in a non-nil interface
	}
	return d, nil
}

func openCloudHypervisor(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, error) {
	d, err := cloudhypervisor.Open(ctx, cloudhypervisor.Options{
		Binary: conf.CloudHypervisor, Lib: conf.Home.Lib(), Kernel: guestKernel(conf), Trust: conf.Accel == config.AccelKVM,
		Account: conf.VMUser, Log: log,
	})
	if err != nil {
		return nil, err // not a nil *Driver in a non-nil interface
	}
	return d, nil
}
