package instance

import (
	"encoding/json"
	"slices"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// notices puts what a machine has suffered from its host beside the output of a process:
// whoever reads the status has been told.
type notices struct {
	last []byte // payload of the Exit frame, while a Notice goes before it
}

// recv returns the next frame of a process, with a Notice before its Exit if there is
// trouble.
func (n *notices) recv(from Attachment, trouble func() error) (frame.Frame, error) {
	if n.last != nil {
		f := frame.Frame{Type: frame.Exit, Payload: n.last}
		n.last = nil
		return f, nil
	}
	f, err := from.Recv()
	if err != nil || f.Type != frame.Exit {
		return f, err
	}
	if t := trouble(); t != nil {
		n.last = slices.Clone(f.Payload)
		return noticeOf(t), nil
	}
	return f, nil
}

// noticeOf puts an error beside the output.
func noticeOf(err error) frame.Frame {
	body, _ := json.Marshal(api.ErrorOf(err)) // of strings; cannot fail
	return frame.Frame{Type: frame.Notice, Payload: body}
}

// trouble returns what an instance that stays suffers from its host. Its guest does not
// get over that by itself: a disk that was full is read-only to it.
func (a *actor) trouble(l *live) error {
	err := l.trouble()
	if err == nil || a.spec.Ephemeral {
		return err
	}
	return fault.Wrap(fault.KindOf(err), err, "").By(fault.BlameOf(err)).
		WithHint("%s; then: aegis instance restart %s", fault.HintOf(err), a.spec.Handle)
}

// tellTrouble writes into the instance's log what its machine suffers, once.
func (a *actor) tellTrouble(l *live, b *body) {
	select {
	case <-b.suffered():
		err := a.trouble(l)
		a.remark("%v; %s", err, fault.HintOf(err))
	case <-b.over:
	case <-a.left:
	}
}
