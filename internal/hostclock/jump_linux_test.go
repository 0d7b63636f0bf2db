package hostclock

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// jumpVariable lets TestJump set the clock. It is for machines whose clock nobody needs:
// the tests in VMs run it in one.
const jumpVariable = "AEGIS_TEST_SET_CLOCK"

// TestJump sets the clock there and back.
func TestJump(t *testing.T) {
	if os.Getenv(jumpVariable) != "1" {
		t.Skip("it would set this machine's clock; package e2e runs it in a VM")
	}
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []time.Duration{time.Hour, -time.Hour, time.Second} {
		to := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &to); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.Jumps():
		case <-time.After(10 * time.Second):
			t.Errorf("a jump by %v is not noticed", by)
		}
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}
