//go:build linux

package pid1

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guest/server"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Run is the life of PID 1. It returns only if the guest cannot live; the caller
// says why and exits, which panics the kernel.
func Run() error {
	if os.Getpid() != 1 {
		return errors.New("this is PID 1 of a VM of AegisVM; it does nothing elsewhere")
	}
	if err := mountEarly(); err != nil {
		return err
	}
	// Servers want many descriptors; programs that close every possible one should
	// not take forever over it.
	limit := syscall.Rlimit{Cur: 64 << 10, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	magic, err := commandLineMagic()
	if err != nil {
		return err
	}
	mods, err := openModules()
	if err != nil {
		return err
	}
	if err := mods.load("early"); err != nil {
		return err
	}
	dev, err := meetHost(mods)
	if err != nil {
		return err
	}
	reap := newReaper()
	m := newMachine(mods, onCommandLine(guestproto.TemplateArg))
	m.build()

	api, err := listenAPI()
	if err != nil {
		console("no Guest API: %v", err) // programs go on without
	}
	table := process.New(&launcher{reaper: reap, machine: m}, m.ringFile)
	s := server.New(server.Config{
		Port:      port.New(dev, magic),
		Table:     table,
		System:    m,
		Harness:   buildinfo.Version(),
		BootNonce: bootNonce(),
		Files:     "/",
		Changes:   m.changes,
		API:       api,
	})
	go watchOOM(s.OOM) // for life
	return s.Run()
}

func commandLineMagic() (guestproto.Magic, error) {
	var magic guestproto.Magic
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return magic, err
	}
	for arg := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(arg, guestproto.MagicArg+"="); ok {
			return magic, magic.UnmarshalText([]byte(v))
		}
	}
	return magic, fmt.Errorf("the kernel command line has no %s", guestproto.MagicArg)
}

func onCommandLine(arg string) bool {
	line, err := os.ReadFile("/proc/cmdline")
	return err == nil && slices.Contains(strings.Fields(string(line)), arg)
}

func bootNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// console writes a line to the console, for whoever reads the VM's log.
func console(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "aegis-harness: "+format+"\n", args...) // there is no other place
}
