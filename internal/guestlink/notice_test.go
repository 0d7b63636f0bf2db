package guestlink

import (
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Whoever reads the status of a program that the kernel killed for memory has been
// told so before.
func TestOutOfMemory(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	a := start(t, l, guestproto.Spawn{ID: "hog", Command: []string{"hog"}})
	f, err := a.Recv()
	if err != nil || f.Type != frame.Notice {
		t.Fatalf("first frame is of type %d, %v", f.Type, err)
	}
	var n api.Error
	if err := json.Unmarshal(f.Payload, &n); err != nil || n.Code != string(fault.Exhausted) || n.Hint == "" {
		t.Errorf("notice %s, %v", f.Payload, err)
	}
	f, err = a.Recv()
	if status, statusErr := f.Status(); err != nil || statusErr != nil || status != 137 {
		t.Errorf("status %d, %v, %v", status, err, statusErr)
	}
	if _, err := a.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// A guest's notices are counted, and none of its words is shown.
func TestNoticesOfHostileGuests(t *testing.T) {
	a := &attachment{changed: make(chan struct{})}
	flood := frame.Frame{Type: frame.Notice, Payload: []byte("\x1b[2J")}
	for i := range 5 {
		deliver, err := a.take(flood)
		if deliver != (i < maxNotices) || err != nil {
			t.Errorf("notice %d: %v, %v", i, deliver, err)
		}
	}
	if want := uint64(5 * (frame.HeaderSize + len(flood.Payload))); a.log != want {
		t.Errorf("offset %d, want %d", a.log, want)
	}
}
