package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestChain(t *testing.T) {
	inner := New(Exhausted, "write disk").By(Host).WithHint("free some space").WithExit(126)
	outer := fmt.Errorf("start inst-1: %w", Wrap(Internal, inner, "boot").By(Driver))
	if k := KindOf(outer); k != Internal {
		t.Errorf("KindOf = %s, want the outermost kind", k)
	}
	if h := HintOf(outer); h != "free some space" {
		t.Errorf("HintOf = %q", h)
	}
	if b := BlameOf(outer); b != Host {
		t.Errorf("BlameOf = %q, want the innermost blame", b)
	}
	if x := ExitOf(outer); x != 126 {
		t.Errorf("ExitOf = %d, want that of the cause", x)
	}
	if got, want := outer.Error(), "start inst-1: boot: write disk"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestKindOfForeignErrors(t *testing.T) {
	for err, want := range map[error]Kind{
		context.Canceled:         Canceled,
		context.DeadlineExceeded: Timeout,
		errors.ErrUnsupported:    Internal,
	} {
		if k := KindOf(fmt.Errorf("x: %w", err)); k != want {
			t.Errorf("KindOf(%v) = %s, want %s", err, k, want)
		}
	}
	if HintOf(errors.ErrUnsupported) != "" || BlameOf(errors.ErrUnsupported) != "" || ExitOf(errors.ErrUnsupported) != 0 {
		t.Error("a foreign error has neither hint nor blame nor exit")
	}
}
