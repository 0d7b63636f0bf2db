package guestlink

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

func TestReopenAfterSave(t *testing.T) {
	rec := &guesttest.Record{}
	r := newRig(t, guesttest.Options{Record: rec})
	l := r.open(t)
	a := start(t, l, guestproto.Spawn{ID: "cat", Command: []string{"cat"}, Stdin: true})
	if _, err := l.Freeze(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	h := hello()
	h.Identity.Clone = true
	if err := l.reopen(t.Context(), r, h); err != nil {
		t.Fatal(err)
	}
	if ids := rec.Identities(); len(ids) != 2 || !ids[1].Clone {
		t.Errorf("identities %+v", ids)
	}
	if l.Magic() != *h.Rekey {
		t.Error("the magic was not renewed")
	}
	if err := send(a, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := drain(a, &out, io.Discard); err != nil || out.String() != "hi" {
		t.Errorf("after reopening: %q, %v", out.String(), err)
	}
}

// TestSuspend: the machine ends and the guest goes on in another one. Nobody who uses
// the link notices more than a wait.
func TestSuspend(t *testing.T) {
	r := newRig(t, guesttest.Options{})
	l := r.open(t)
	a := start(t, l, guestproto.Spawn{ID: "cat", Command: []string{"cat"}, Stdin: true})
	l.Suspend()
	r.mu.Lock()
	r.err = fmt.Errorf("qemu: %w", vmm.ErrEnded)
	r.mu.Unlock()
	r.cut()
	spawned := make(chan error, 1)
	go func() { spawned <- l.Spawn(t.Context(), guestproto.Spawn{ID: "x", Command: []string{"true"}}) }()
	select {
	case err := <-spawned:
		t.Fatalf("Spawn in a guest without a machine = %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	r.mu.Lock()
	r.err = nil
	r.mu.Unlock()
	if err := l.reopen(t.Context(), r, hello()); err != nil {
		t.Fatal(err)
	}
	if err := <-spawned; err != nil {
		t.Errorf("Spawn = %v", err)
	}
	if err := send(a, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := drain(a, &out, io.Discard); err != nil || out.String() != "hi" {
		t.Errorf("after waking: %q, %v", out.String(), err)
	}
}
