package guestlink

import (
	"errors"
	"reflect"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

func TestMount(t *testing.T) {
	var record guesttest.Record
	l := newRig(t, guesttest.Options{Record: &record}).open(t)
	want := guestproto.Mount{
		Mounts:    []guestproto.MountPoint{{Export: "/", Target: "/workspace"}, {Export: "/mounts/0", Target: "/data", ReadOnly: true}},
		Reconnect: true,
	}
	if err := l.Mount(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got := record.Mounts(); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
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
