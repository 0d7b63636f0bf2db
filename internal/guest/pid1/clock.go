//go:build linux

package pid1

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of random(4).
const (
	rndAddEntropy = 0x40085203
	rndReseedCRNG = 0x5207
)

// reseed gives the kernel's generator secret bytes of the host's and makes it use
// them at once. Without the second step clones of a template return the same bytes
// for up to a minute.
func reseed(entropy []byte) error {
	if len(entropy) == 0 {
		return nil
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nothing is buffered
	// struct rand_pool_info: bits of entropy, bytes, then the bytes.
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(entropy))) //nolint:gosec // 32 bytes
	info = binary.NativeEndian.AppendUint32(info, uint32(len(entropy)))   //nolint:gosec // 32 bytes
	info = append(info, entropy...)
	//nolint:gosec // the ioctl takes a pointer
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("add entropy: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); errno != 0 {
		return fmt.Errorf("reseed: %w", errno)
	}
	return nil
}

// clockSlack is the difference from the host's clock that is left alone: a message
// takes that long, and programs should not see time go back at every reconnect.
const clockSlack = 50 * time.Millisecond

func setClock(now time.Time) error {
	if d := time.Until(now); d.Abs() < clockSlack {
		return nil
	}
	ts := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// meminfo returns a line of /proc/meminfo in bytes, 0 if it is not there.
func meminfo(text, key string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
