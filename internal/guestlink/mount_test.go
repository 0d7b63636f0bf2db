package guestlink

import (
	"errors"
	"slices"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

func TestMount(t *testing.T) {
	var record guesttest.Record
	l := newRig(t, guesttest.Options{Record: &record}).open(t)
	want := []guestproto.MountPoint{{Export: "/", Target: "/workspace"}, {Export: "/mounts/0", Target: "/data", ReadOnly: true}}
	if err := l.Mount(t.Context(), guestproto.Mount{Mounts: want}); err != nil {
		t.Fatal(err)
	}
	if got := record.Mounts(); !slices.Equal(got, want) {
		t.Errorf("the guest was asked for %+v, want %+v", got, want)
	}
}

func TestMountFails(t *testing.T) {
	refused := &guestproto.Error{Code: guestproto.CodeUnavailable, Msg: "mount a folder of the host on /workspace: connection refused"}
	l := newRig(t, guesttest.Options{Mount: refused}).open(t)
	err := l.Mount(t.Context(), guestproto.Mount{Mounts: []guestproto.MountPoint{{Export: "/", Target: "/workspace"}}})
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Unavailable || f.Blame != fault.Guest {
		t.Errorf("%+v, want unavailable, by the guest", err)
	}
}
