package daemon

import (
	"runtime/debug"
	"testing"

	"github.com/xfeldman/aegisvm/internal/netstack"
	"github.com/xfeldman/aegisvm/internal/size"
)

// TestGuestLimits: whatever the descriptors, one guest has no more than half of them, and
// where there are many it has what it has by default.
func TestGuestLimits(t *testing.T) {
	usual := netstack.Limits{}.Complete()
	for _, files := range []uint64{64, 256, 1024, 4096, 1 << 20, 1<<64 - 1} {
		l := guestLimits(files)
		if l.Connections < 16 || l.Flows < 16 || l.Opening < 16 || l.Inbound < 16 {
			t.Errorf("%d descriptors: %+v", files, l)
		}
		if files >= 256 && uint64(l.Connections+l.Flows+l.Inbound) > files/2 {
			t.Errorf("%d descriptors: one guest may have %d and %d and %d", files, l.Connections, l.Flows, l.Inbound)
		}
		if files >= 1<<20 && l != usual {
			t.Errorf("%d descriptors: %+v, want %+v", files, l, usual)
		}
	}
	if n := openFiles(); n < 64 {
		t.Errorf("this process may have %d descriptors", n)
	}
}

func TestBoundMemory(t *testing.T) {
	for host, want := range map[size.Bytes]size.Bytes{size.GiB: 256 * size.MiB, 8 * size.GiB: size.GiB, 64 * size.GiB: 2 * size.GiB} {
		if got := memoryLimit(host); got != want {
			t.Errorf("of %v: %v, want %v", host, got, want)
		}
	}
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "")
	boundMemory()
	if got := size.Bytes(debug.SetMemoryLimit(-1)); got < 256*size.MiB || got > 2*size.GiB {
		t.Errorf("the collector has %v", got)
	}
	debug.SetMemoryLimit(12345 << 20)
	t.Setenv("GOMEMLIMIT", "12345MiB")
	boundMemory()
	if got := debug.SetMemoryLimit(-1); got != 12345<<20 {
		t.Errorf("the user's own limit has become %d", got)
	}
}
