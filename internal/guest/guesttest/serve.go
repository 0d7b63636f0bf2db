package guesttest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guest/server"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Options says what kind of guest there is to be.
type Options struct {
	Magic    guestproto.Magic
	Programs map[string]Program // beside the built-in ones
	Rootfs   error              // the root file system cannot be mounted, because of this
	Mount    error              // nor can folders of the host
	PowerOff func()             // the machine is to end; called at most once
	Files    string             // the folder that copies see as the root; "" allows none
	Late     func(what string)  // called before the machine does something: "ready", "thaw"; it may take its time
	API      net.Listener       // where its programs find the Guest API; nil is none
	Record   *Record            // filled with what the host asked for, if not nil
}

// Record is what the host asked of a guest's machine.
type Record struct {
	mu         sync.Mutex
	identities []guestproto.Identity
	thaws      []guestproto.Thaw
	freezes    int
	mounts     []guestproto.Mount
}

// Identities returns the identities that were set.
func (r *Record) Identities() []guestproto.Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]guestproto.Identity(nil), r.identities...)
}

// Thaws returns the thaws that were asked for.
func (r *Record) Thaws() []guestproto.Thaw {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]guestproto.Thaw(nil), r.thaws...)
}

// Mounts returns the requests to mount folders of the host.
func (r *Record) Mounts() []guestproto.Mount {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]guestproto.Mount(nil), r.mounts...)
}

// Freezes returns how often the processes were frozen.
func (r *Record) Freezes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.freezes
}

// Device is a port.Device that can be closed.
type Device interface {
	port.Device
	Close() error
}

// Serve is the life of a guest. It returns when ctx has ended (nil) or the device
// has failed, and all programs have.
func Serve(ctx context.Context, dev Device, opts Options) error {
	table := process.New(newLauncher(opts.Programs), nil)
	s := server.New(server.Config{
		Port:      port.New(dev, opts.Magic),
		Table:     table,
		System:    &system{opts: opts},
		Harness:   "guesttest",
		BootNonce: guestproto.NewMagic().String(),
		Files:     opts.Files,
		API:       opts.API,
	})
	stop := context.AfterFunc(ctx, func() { _ = dev.Close() })
	defer stop()
	err := s.Run()
	_ = table.Close() // always nil
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// system is a machine that does nothing but remember.
type system struct{ opts Options }

func (s *system) Prepare(ctx context.Context, disk int64) error { return s.Ready(ctx, disk) }

func (s *system) Ready(context.Context, int64) error {
	s.late("ready")
	if s.opts.Rootfs != nil {
		return &guestproto.Error{Code: guestproto.CodeRootfs, Msg: s.opts.Rootfs.Error()}
	}
	return nil
}

func (s *system) late(what string) {
	if s.opts.Late != nil {
		s.opts.Late(what)
	}
}

func (s *system) record(f func(*Record)) {
	if r := s.opts.Record; r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		f(r)
	}
}

func (s *system) Identify(id guestproto.Identity) error {
	s.record(func(r *Record) { r.identities = append(r.identities, id) })
	return nil
}

func (s *system) Thaw(thaw guestproto.Thaw) error {
	s.late("thaw")
	s.record(func(r *Record) { r.thaws = append(r.thaws, thaw) })
	if len(thaw.Entropy) < 32 {
		return errors.New("less than 32 bytes of entropy")
	}
	return nil
}

func (s *system) Freeze(time.Duration) ([]string, error) {
	s.record(func(r *Record) { r.freezes++ })
	return nil, nil
}

func (s *system) Mount(req guestproto.Mount) error {
	s.record(func(r *Record) { r.mounts = append(r.mounts, req) })
	return s.opts.Mount
}

func (s *system) Stats() (guestproto.Stats, error) {
	return guestproto.Stats{MemoryTotal: 512 << 20, MemoryAvailable: 400 << 20, DiskTotal: 8 << 30, Processes: 1}, nil
}

func (s *system) PowerOff() {
	if s.opts.PowerOff != nil {
		s.opts.PowerOff()
	}
}
