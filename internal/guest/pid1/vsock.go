//go:build linux

package pid1

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guest/vsock"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// meetHost opens the pipe to the host in the way that the VMM has for it, and makes the
// network card where it has none.
func meetHost(mods modules) (port.Device, error) {
	if !onCommandLine(guestproto.VsockArg) {
		return openPort()
	}
	if err := mods.load("vsock"); err != nil {
		return nil, err
	}
	if address, wanted := valueOnCommandLine(guestproto.CardArg); wanted {
		if err := openCard(address); err != nil {
			return nil, err
		}
	}
	// Last: a host that is answered finds the card there.
	return vsock.OpenDevice(guestproto.VsockPort)
}

func openCard(address string) error {
	mac, err := net.ParseMAC(address)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("the kernel command line has a network card with the address %q", address)
	}
	return vsock.OpenCard("eth0", [6]byte(mac), guestproto.CardPort)
}

// valueOnCommandLine returns what stands behind name= on the kernel command line.
func valueOnCommandLine(name string) (string, bool) {
	line, _ := os.ReadFile("/proc/cmdline") // it was read before
	for arg := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(arg, name+"="); ok {
			return v, true
		}
	}
	return "", false
}
