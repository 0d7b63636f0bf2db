// Package drivers is the list of AegisVM's drivers, and the choice between them. It
// is wiring, apart from package daemon because `aegis doctor` asks the same
// question without a daemon.
package drivers

import (
	"context"
	"log/slog"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/doctor"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun"
	"github.com/xfeldman/aegisvm/internal/vmm/qemu"
)

// open is how each driver is opened. Auto is the best that this host can run.
var open = map[config.VMM]func(context.Context, *config.Config, *slog.Logger) (vmm.Driver, error){
	config.VMMAuto:    openQEMU,
	config.VMMQEMU:    openQEMU,
	config.VMMLibkrun: openLibkrun,
}

// Open opens the driver that the settings ask for. It may boot a kernel, once for
// each boot of the host, to learn whether hardware virtualization works.
func Open(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, error) {
	return open[conf.VMM](ctx, conf, log)
}

// Accelerator tells how machines would run. Its signature is that of
// doctor.Options.Accel, but for the settings.
func Accelerator(ctx context.Context, conf *config.Config) (doctor.Accelerator, error) {
	d, err := Open(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		return doctor.Accelerator{}, err
	}
	info := d.Info()
	return doctor.Accelerator{Name: info.Accel, Isolation: string(info.Isolation), Why: info.Why}, nil
}

func openLibkrun(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, error) {
	if conf.Accel == config.AccelTCG {
		return nil, fault.New(fault.Invalid, "libkrun cannot emulate, as AEGIS_ACCEL=tcg asks for").WithHint("AEGIS_VMM=qemu can")
	}
	image := ""
	if k, err := kernel.Installed(conf.Home); err == nil {
		image = k.Image
	}
	d, err := libkrun.Open(ctx, libkrun.Options{
		Library: conf.Libkrun, Kernel: image, Trust: conf.Accel == config.AccelKVM, Account: conf.VMUser, Log: log,
	})
	if err != nil {
		return nil, err // not a nil *Driver in a non-nil interface
	}
	return d, nil
}

func openQEMU(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, error) {
	// Without a kernel nothing can be tried; set-up tells, and so does the first run.
	image := ""
	if k, err := kernel.Installed(conf.Home); err == nil {
		image = k.Image
	}
	d, err := qemu.Open(ctx, qemu.Options{
		Binary: conf.QEMU, Accel: qemu.Accel(conf.Accel), Kernel: image, Account: conf.VMUser, Log: log,
	})
	if err != nil {
		return nil, err // not a nil *Driver in a non-nil interface
	}
	return d, nil
}
