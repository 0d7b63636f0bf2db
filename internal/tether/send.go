package tether

import (
	"context"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/message"
)

// Send stores a frame of a client's for the agent in an instance, and has it brought
// there: the instance wakes. It returns when the frame is durable. A frame whose MsgID is
// stored already is the same frame. What an instance that nothing can wake is sent is
// refused and not stored.
func (t *Tether) Send(ctx context.Context, ref string, f api.Frame) (api.TetherSent, error) {
	if err := message.Ingress(&f, time.Now()); err != nil {
		return api.TetherSent{}, err
	}
	l, v, err := t.find(ref)
	if err != nil {
		return api.TetherSent{}, err
	}
	if err := t.admit(l, v); err != nil {
		return api.TetherSent{}, err
	}
	s, err := t.ledger.post(ctx, message.Entry{Instance: string(v.ID), Frame: f, Ingress: true}, func(s message.Stored) {
		switch {
		case s.Err != nil:
			return
		case s.Known:
			l.again()
		default:
			l.sent(s.Seq)
		}
		t.attend(l) // here, as the sender may not wait any more
	})
	if err != nil {
		return api.TetherSent{}, err
	}
	return api.TetherSent{MsgID: f.MsgID, SessionID: f.Session.ID, IngressSeq: s.Seq}, nil
}

// admit refuses messages that would wait for a person.
func (t *Tether) admit(l *line, v instance.View) error {
	name := v.Spec.Handle
	switch {
	case !v.Enabled:
		return fault.New(fault.Conflict, "%s is disabled, and takes no messages", name).
			WithHint("aegis instance start --name %s", name)
	case v.Barred:
		return fault.New(fault.Conflict, "%s takes no messages: its program crashed again and again", name).By(fault.Program).
			WithHint("see why (aegis logs %s), then: aegis instance start --name %s", name, name)
	case l.full(t.limits.Waiting):
		return fault.New(fault.Exhausted, "%d messages wait for the agent in %s already", t.limits.Waiting, name).By(fault.Program).
			WithHint("does an agent run in it, and listen? see: aegis logs %s", name)
	}
	return nil
}

// Emit takes a frame from the agent in an instance. It returns when the frame is durable,
// with its MsgID and Seq; a MsgID that is stored already is answered with the Seq that it
// has. A delta has no Seq: it is passed on to those who listen now.
func (t *Tether) Emit(ctx context.Context, id instance.ID, f api.Frame) (api.Frame, error) {
	replyTo, err := message.Egress(&f, time.Now())
	if err != nil {
		return f, err
	}
	l, _, err := t.find(string(id))
	if err != nil {
		return f, err
	}
	if message.Live(f.Type) {
		t.passed(l, f, replyTo)
		return f, nil
	}
	s, err := t.ledger.post(ctx, message.Entry{Instance: string(id), Frame: f, ReplyTo: replyTo}, func(s message.Stored) {
		if s.Err == nil && !s.Known {
			stored := f
			stored.Seq = s.Seq
			t.passed(l, stored, replyTo)
		}
	})
	f.Seq = s.Seq
	return f, err
}

// passed makes a frame of an agent's known.
func (t *Tether) passed(l *line, f api.Frame, replyTo string) {
	if l.emitted(f, replyTo, message.Live(f.Type)) {
		t.attend(l)
	}
}
