//go:build integration

package e2e

import "testing"

// hog takes memory until there is no more.
const hog = "x = []\nwhile True: x.append(bytearray(16 << 20))"

// TestFaultGuest breaks the system in the VM from within.
func TestFaultGuest(t *testing.T) {
	h := newHost(t)
	for _, f := range []struct {
		name   string
		status int
		args   []string
	}{
		{"memory_short_on_host", 125, []string{"--memory", "900T", "--", "true"}},
		{"harness_crashes", 125, []string{"--", "sh", "-c", "kill -SEGV 1; sleep 600"}},
		{"kernel_panics", 125, []string{"--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 600"}},
		{"guest_resets", 125, []string{"--", "sh", "-c", "echo b > /proc/sysrq-trigger; sleep 600"}},
		{"guest_powers_off", 125, []string{"--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 600"}},
		{"out_of_memory", 137, []string{"--memory", "256M", "--", "python3", "-c", hog}},
		{"child_out_of_memory", 5, []string{"--memory", "256M", "--", "sh", "-c", "python3 -c '" + hog + "' 2>/dev/null; exit 5"}},
	} {
		t.Run(f.name, func(t *testing.T) {
			h := h.sub(t)
			h.fails(f.name, f.status, h.try(append([]string{"run"}, f.args...)...))
		})
	}
	h.works()
}
