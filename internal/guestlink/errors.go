package guestlink

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

var (
	// errSessionEnded is what calls on a session return when it is over.
	errSessionEnded = errors.New("the session with the guest ended")
	// errProtocol marks a guest that does not keep to the protocol.
	errProtocol = errors.New("the guest broke the protocol")
)

// maxText bounds what a guest may say in an error.
const maxText = 300

// noCommandExit is what a shell's status is for a command that it does not find.
const noCommandExit = 127

// pathHint is for a command that is a path, which nobody looks up on PATH.
const pathHint = "it is a path in the VM, from its working folder: see --workdir; files of a workspace are below /workspace"

// guestFault turns what a guest says into what a person reads. The guestproto.Error
// stays in the chain, with its text cleaned; what was tried goes before it.
func guestFault(doing string, said *guestproto.Error) error {
	msg := clean(said.Msg)
	if doing != "" {
		msg = doing + ": " + msg
	}
	f := &fault.Error{Kind: fault.Internal, Blame: fault.Guest}
	switch said.Code {
	case guestproto.CodeNoCommand:
		msg = doing + ": command not found in the VM"
		f.Kind, f.Blame, f.Exit = fault.NotFound, fault.Program, noCommandExit
		f.Hint = "check its name; it is looked up on the PATH of the VM, not of the host"
	case guestproto.CodeNotExecutable:
		f.Kind, f.Blame, f.Exit = fault.Invalid, fault.Program, 126
		f.Hint = "is it executable, and built for the VM's processor?"
	case guestproto.CodeNotFound:
		f.Kind, f.Blame = fault.NotFound, ""
	case guestproto.CodeInvalid:
		f.Kind, f.Blame = fault.Invalid, fault.Program
	case guestproto.CodeExhausted:
		f.Kind, f.Hint = fault.Exhausted, "give the VM more: --memory, --disk"
	case guestproto.CodeRootfs:
		msg = "the VM could not mount its root file system: " + clean(said.Msg)
		f.Kind, f.Blame, f.Hint = fault.Unavailable, fault.Image, "is the image damaged? for the default one: remove data/images/base.json in AEGIS_HOME, then aegis setup"
	case guestproto.CodeVersion:
		f.Kind, f.Hint = fault.Conflict, "start it again: aegis instance restart NAME"
		f.Err = &foreignError{&guestproto.Error{Code: said.Code, Msg: msg}}
		return f
	case guestproto.CodeUnsupported, guestproto.CodeUnavailable:
		f.Kind = fault.Unavailable
	case guestproto.CodeInternal:
	}
	f.Err = &guestproto.Error{Code: said.Code, Msg: msg}
	return f
}

// foreignError is of a guest whose PID 1 has no version of the protocol in common with this
// daemon: it comes from a release that is too far from this one. What it has in memory is of
// no use to this one, as is a saved machine that is stale.
type foreignError struct{ said *guestproto.Error }

// Error implements error.
func (e *foreignError) Error() string {
	return "what runs in the VM is of another version of AegisVM: " + e.said.Error()
}

// Unwrap returns what the guest said.
func (e *foreignError) Unwrap() error { return e.said }

// Is makes it a vmm.ErrStale.
func (e *foreignError) Is(target error) bool { return target == vmm.ErrStale }

// noticeFrame puts what a guest says beside a process's output in the host's words.
// A guest can say one thing only; what else it writes there is not shown.
func noticeFrame() frame.Frame {
	starved := fault.New(fault.Exhausted, "the VM ran out of memory, and its kernel killed a process of the command").
		WithHint("give it more: --memory")
	body, _ := json.Marshal(api.ErrorOf(starved)) // of strings; cannot fail
	return frame.Frame{Type: frame.Notice, Payload: body}
}

// broken is the fault of a guest that does not keep to the protocol.
func broken(format string, args ...any) error {
	return fault.Wrap(fault.Internal, fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, args...)), "link to the VM").By(fault.Guest).
		WithHint("something in the VM has tampered with its PID 1; start it again")
}

// clean makes a guest's text fit for a terminal.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText]) + "..."
	}
	return s
}
