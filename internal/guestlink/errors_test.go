package guestlink

import (
	"errors"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// TestForeignGuest: a guest without a version in common is as stale as memory that another
// VMM saved, and says so.
func TestForeignGuest(t *testing.T) {
	said := &guestproto.Error{Code: guestproto.CodeVersion, Msg: "the host speaks versions 1 to 1 of the protocol, the guest 7 to 9"}
	err := asFault(said)
	if !errors.Is(err, vmm.ErrStale) || fault.KindOf(err) != fault.Conflict || fault.HintOf(err) == "" ||
		!strings.Contains(err.Error(), "another version of AegisVM") || !strings.Contains(err.Error(), "7 to 9") {
		t.Errorf("%v (%s, hint %q)", err, fault.KindOf(err), fault.HintOf(err))
	}
	if again, ok := errors.AsType[*guestproto.Error](err); !ok || again.Code != said.Code {
		t.Errorf("what the guest said is lost: %v", err)
	}
	other := asFault(&guestproto.Error{Code: guestproto.CodeInternal, Msg: "no"})
	if errors.Is(other, vmm.ErrStale) {
		t.Errorf("%v is stale", other)
	}
}
