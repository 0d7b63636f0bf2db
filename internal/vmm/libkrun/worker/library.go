package worker

import (
	"fmt"
	"runtime"
	"syscall"

	"github.com/ebitengine/purego"
)

// library is what is used of libkrun's C interface (include/libkrun.h). All functions
// but hasFeature return a negative errno when they fail.
type library struct {
	hasFeature func(feature uint64) int32 // 1, 0, or a negative errno for one it has not heard of

	initLog   func(fd int32, level, style, options uint32) int32
	createCtx func() int32

	setVMConfig func(ctx uint32, vcpus uint8, mib uint32) int32
	setKernel   func(ctx uint32, path string, format uint32, initrd *byte, cmdline string) int32
	addDisk     func(ctx uint32, id, path string, readOnly bool) int32
	addNet      func(ctx uint32, path *byte, fd int32, mac *byte, features, flags uint32) int32

	noConsole  func(ctx uint32) int32
	noVsock    func(ctx uint32) int32
	addSerial  func(ctx uint32, in, out int32) int32
	addConsole func(ctx uint32) int32
	addPort    func(ctx, console uint32, name string, in, out int32) int32

	setUID func(ctx, uid uint32) int32
	setGID func(ctx, gid uint32) int32

	enter func(ctx uint32) int32 // returns only if it fails
}

// symbols are the functions by their names in the library.
func (l *library) symbols() map[string]any {
	return map[string]any{
		"krun_has_feature":                  &l.hasFeature,
		"krun_init_log":                     &l.initLog,
		"krun_create_ctx":                   &l.createCtx,
		"krun_set_vm_config":                &l.setVMConfig,
		"krun_set_kernel":                   &l.setKernel,
		"krun_add_disk":                     &l.addDisk,
		"krun_add_net_unixstream":           &l.addNet,
		"krun_disable_implicit_console":     &l.noConsole,
		"krun_disable_implicit_vsock":       &l.noVsock,
		"krun_add_serial_console_default":   &l.addSerial,
		"krun_add_virtio_console_multiport": &l.addConsole,
		"krun_add_console_port_inout":       &l.addPort,
		"krun_setuid":                       &l.setUID,
		"krun_setgid":                       &l.setGID,
		"krun_start_enter":                  &l.enter,
	}
}

// open loads a library, and tells which functions it lacks. What is missing must not
// be called.
func open(name string) (*library, []string, error) {
	handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, nil, err
	}
	l := &library{}
	var missing []string
	for symbol, f := range l.symbols() {
		at, err := purego.Dlsym(handle, symbol)
		if err != nil {
			missing = append(missing, symbol)
			continue
		}
		purego.RegisterFunc(f, at)
	}
	return l, missing, nil
}

// Numbers from libkrun.h.
const (
	featureNet = 0
	featureBlk = 1

	logWarn     = 2
	logPlain    = 2 // no escape sequences
	logNoEnv    = 1
	logToStderr = 2

	guestChecksum = 1 << 1
	guestTSO4     = 1 << 7
	guestTSO6     = 1 << 8

	// cardFeatures make the guest's driver provide buffers for packets of 64 KB: it has
	// them only for a card that may hand it several segments in one. Nothing that the
	// guest sends may be unfinished, as frames come without the card's header.
	cardFeatures = guestChecksum | guestTSO4 | guestTSO6
)

// failure is an error of a function of the library.
type failure struct {
	function string
	errno    syscall.Errno
}

func (f *failure) Error() string { return fmt.Sprintf("%s: %v", f.function, f.errno) }

func (f *failure) Unwrap() error { return f.errno }

// abortAtOnce makes abort(3), which is how libkrun ends over a defect, end the process
// as it does in other programs. Go's runtime would first print all it knows of its own
// threads after libkrun's last words.
func abortAtOnce() {
	at, err := purego.Dlsym(purego.RTLD_DEFAULT, "signal")
	if err != nil {
		return // then more is printed
	}
	var signal func(number int32, handler uintptr) uintptr
	purego.RegisterFunc(&signal, at)
	signal(int32(syscall.SIGABRT), 0) // SIG_DFL
}

// check turns what a function has returned into an error.
func check(function string, result int32) error {
	if result >= 0 {
		return nil
	}
	return &failure{function, syscall.Errno(-result)}
}

// cString returns s as C has it, and keep, which must be called after its last use. ""
// is NULL.
func cString(s string) (p *byte, keep func()) {
	if s == "" {
		return nil, func() {}
	}
	b := append([]byte(s), 0)
	return &b[0], func() { runtime.KeepAlive(b) }
}
