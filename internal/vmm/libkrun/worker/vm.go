package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

var errFrame = errors.New("not the length of a frame")

// vm is a VM that is being put together.
type vm struct {
	lib   *library
	ctx   uint32
	r     *recipe.Recipe
	ports []*port
}

// become turns the process into the VM of a recipe. It returns only with an error.
func become(r *recipe.Recipe) error {
	lib, missing, err := open(r.Library)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("%s lacks %s", r.Library, strings.Join(missing, ", "))
	}
	// To stderr, which is a pipe of bounded size, whatever the environment says.
	if err := check("krun_init_log", lib.initLog(logToStderr, logWarn, logPlain, logNoEnv)); err != nil {
		return err
	}
	ctx := lib.createCtx()
	if err := check("krun_create_ctx", ctx); err != nil {
		return err
	}
	v := &vm{lib: lib, ctx: uint32(ctx), r: r} //nolint:gosec // not negative
	for _, step := range []func() error{v.machine, v.devices, v.disks, v.card, v.account} {
		if err := step(); err != nil {
			return err
		}
	}
	return v.enter()
}

func (v *vm) machine() error {
	if v.r.VCPUs < 1 || v.r.VCPUs > 255 || v.r.Memory < 1 || v.r.Memory > 1<<31 {
		return fmt.Errorf("%d CPUs, %d MiB: %w", v.r.VCPUs, v.r.Memory, syscall.EINVAL)
	}
	if err := check("krun_set_vm_config", v.lib.setVMConfig(v.ctx, uint8(v.r.VCPUs), uint32(v.r.Memory))); err != nil {
		return err
	}
	initrd, keep := cString(v.r.Initrd)
	defer keep()
	return check("krun_set_kernel", v.lib.setKernel(v.ctx, v.r.Kernel, uint32(v.r.Format), initrd, v.r.Cmdline))
}

// devices gives the VM a serial console and the port, and nothing that libkrun would
// add by itself: a vsock device of its lets guests use the host's network.
func (v *vm) devices() error {
	if err := check("krun_disable_implicit_console", v.lib.noConsole(v.ctx)); err != nil {
		return err
	}
	if err := check("krun_disable_implicit_vsock", v.lib.noVsock(v.ctx)); err != nil {
		return err
	}
	if err := check("krun_add_serial_console_default", v.lib.addSerial(v.ctx, -1, int32(v.r.Console))); err != nil { //nolint:gosec // a descriptor
		return err
	}
	console := v.lib.addConsole(v.ctx)
	if err := check("krun_add_virtio_console_multiport", console); err != nil {
		return err
	}
	fd, err := v.join(v.r.Ctl, false)
	if err != nil {
		return err
	}
	return check("krun_add_console_port_inout", v.lib.addPort(v.ctx, uint32(console), guestproto.PortName, fd, fd)) //nolint:gosec // not negative
}

func (v *vm) disks() error {
	for _, d := range v.r.Disks {
		if err := check("krun_add_disk", v.lib.addDisk(v.ctx, d.Name, d.Path, d.ReadOnly)); err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	return nil
}

func (v *vm) card() error {
	if len(v.r.MAC) == 0 {
		return nil
	}
	fd, err := v.join(v.r.Net, true)
	if err != nil {
		return err
	}
	mac := [6]byte(v.r.MAC)
	return check("krun_add_net_unixstream", v.lib.addNet(v.ctx, nil, fd, &mac[0], cardFeatures, 0))
}

// account makes libkrun become a user without rights, once it has opened the disks and
// before the guest runs.
func (v *vm) account() error {
	if v.r.Account == nil {
		return nil
	}
	return errors.Join(
		check("krun_setgid", v.lib.setGID(v.ctx, v.r.Account.GID)),
		check("krun_setuid", v.lib.setUID(v.ctx, v.r.Account.UID)))
}

// join makes a port for an inherited socket, and returns the descriptor for libkrun.
// That is a blocking one: its network card relies on it.
func (v *vm) join(socket int, frames bool) (int32, error) {
	l, err := listener(socket)
	if err != nil {
		return 0, err
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(ends[1]), "guest")
	defer ours.Close() //nolint:errcheck // FileConn has its own descriptor
	guest, err := net.FileConn(ours)
	if err != nil {
		return 0, err
	}
	v.ports = append(v.ports, newPort(guest, l, frames))
	return int32(ends[0]), nil //nolint:gosec // a descriptor
}

func listener(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "socket")
	if f == nil {
		return nil, os.ErrInvalid
	}
	defer f.Close() //nolint:errcheck // FileListener has its own descriptor
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return l, nil
}

// enter starts the VM. The goroutines end with the process, but for when it does not
// start.
func (v *vm) enter() error {
	life, err := listener(v.r.Life)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	heard := make(chan struct{})
	all.Go(func() { live(life, sync.OnceFunc(func() { close(heard) })) })
	<-heard // from here on libkrun may end the process at any time
	for _, p := range v.ports {
		all.Go(p.run)
	}
	abortAtOnce()
	runtime.LockOSThread() // it is libkrun's from here on
	err = check("krun_start_enter", v.lib.enter(v.ctx))
	closeAll(life)
	for _, p := range v.ports {
		closeAll(p.socket)
		p.end()
	}
	all.Wait()
	if err == nil {
		err = errors.New("krun_start_enter has returned")
	}
	return err
}

func closeAll(listeners ...net.Listener) {
	for _, l := range listeners {
		_ = l.Close() // nobody is to come any more
	}
}

// live says who this is on each connection, tells that somebody has heard it, and holds
// the connection.
func live(l net.Listener, heard func()) {
	var all sync.WaitGroup
	defer all.Wait()
	hello, err := json.Marshal(recipe.Hello{PID: os.Getpid()})
	if err != nil {
		panic(err) // a number
	}
	var conns []net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		conns = append(conns, c)
		all.Go(func() {
			defer closeConn(c)
			if _, err := c.Write(append(hello, '\n')); err == nil {
				heard()
				_, _ = io.Copy(io.Discard, c) // until it is closed
			}
		})
	}
	for _, c := range conns {
		closeConn(c)
	}
}
