package hostclock

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQuiet(t *testing.T) {
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Jumps():
		t.Error("the clock has not jumped")
	case <-time.After(50 * time.Millisecond):
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}
