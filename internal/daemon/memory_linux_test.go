package daemon

import (
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
)

func TestParseMeminfo(t *testing.T) {
	total, available, err := parseMeminfo([]byte("MemTotal:       16393728 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n"))
	if total != 16393728*size.KiB || available != 2*size.MiB || err != nil {
		t.Errorf("%v, %v, %v", total, available, err)
	}
	for _, bad := range []string{"", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"} {
		if _, _, err := parseMeminfo([]byte(bad)); err == nil {
			t.Errorf("%q is no meminfo", bad)
		}
	}
	if total, available, err := hostMemory(); total < size.MiB || available > total || err != nil {
		t.Errorf("this host: %v, %v, %v", total, available, err)
	}
}
