package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind classifies a failure by what the caller can do about it.
type Kind string

// The kinds, as they stand in the "code" field of an API error.
const (
	NotFound    Kind = "not_found"   // the named thing does not exist
	Conflict    Kind = "conflict"    // the thing is in a state that does not allow it
	Invalid     Kind = "invalid"     // the request is wrong and will stay wrong
	Denied      Kind = "denied"      // a policy or a right forbids it
	Unavailable Kind = "unavailable" // something needed is missing or down; trying later may help
	Exhausted   Kind = "exhausted"   // memory, disk or another quantity has run out
	TooLarge    Kind = "too_large"   // what was sent or asked for is over a limit
	Timeout     Kind = "timeout"     // a named limit of time passed
	Canceled    Kind = "canceled"    // the caller went away
	Internal    Kind = "internal"    // a defect of AegisVM, or a fault nobody foresaw
)

// Kinds lists every Kind, for tables that must be complete.
func Kinds() []Kind {
	return []Kind{NotFound, Conflict, Invalid, Denied, Unavailable, Exhausted, TooLarge, Timeout, Canceled, Internal}
}

// Blame says whose fault a failure is. It is empty where the Kind says enough.
type Blame string

// Who can be at fault.
const (
	Host    Blame = "host"    // the machine AegisVM runs on: disk, memory, missing programs
	Driver  Blame = "driver"  // the virtual machine monitor
	Image   Blame = "image"   // the root file system the instance was to run
	Guest   Blame = "guest"   // the kernel or the harness inside the VM
	Program Blame = "program" // the user's own command
)

// Error is a failure that a person may meet.
type Error struct {
	Kind  Kind
	Blame Blame  // whose fault, or ""
	Msg   string // what happened to what, without a trailing period
	Hint  string // the next command to type or thing to change, or ""
	Exit  int    // the status a shell gives for it: 126 not executable, 127 not found; else 0
	Err   error  // the cause, or nil
}

// Error returns the message followed by its cause. The hint is not part of it.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	if e.Msg == "" {
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an Error of kind k.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...)}
}

// Wrap makes an Error of kind k around err.
func Wrap(k Kind, err error, format string, args ...any) *Error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...), Err: err}
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// By sets whose fault it is and returns e.
func (e *Error) By(b Blame) *Error {
	e.Blame = b
	return e
}

// WithExit sets the status that a shell would give and returns e.
func (e *Error) WithExit(status int) *Error {
	e.Exit = status
	return e
}

// KindOf returns the Kind of the outermost Error in err's chain. Errors of
// contexts are Canceled and Timeout; everything else is Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	default:
		return Internal
	}
}

// HintOf returns the first hint in err's chain, from the outside in, or "".
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// BlameOf returns the innermost Blame in err's chain, or "": the layer nearest
// to the failure knows best.
func BlameOf(err error) Blame {
	var b Blame
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return b
		}
		if e.Blame != "" {
			b = e.Blame
		}
		err = e.Err
	}
	return b
}

// ExitOf returns the first Exit in err's chain that is not 0, from the outside in,
// or 0.
func ExitOf(err error) int {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return 0
		}
		if e.Exit != 0 {
			return e.Exit
		}
		err = e.Err
	}
	return 0
}
