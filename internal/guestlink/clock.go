package guestlink

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

const (
	// prompt is how soon an answer comes whose request was not long under way: the time
	// that was in it was true then. What a guest's clock is off by stays below this and
	// the guest's own slack together.
	prompt = 40 * time.Millisecond
	// settings is how often a clock is set anew because the answer was late. On a host
	// so busy that none is prompt, the last one has to do.
	settings = 5
)

// newThaw returns what a guest is to be told now. It is out of date soon.
func newThaw() *guestproto.Thaw {
	t := &guestproto.Thaw{Entropy: make([]byte, 32)}
	_, _ = rand.Read(t.Entropy) // never fails, see crypto/rand
	t.UnixNano = time.Now().UnixNano()
	return t
}

// Thaw sets the guest's clock, reseeds its random numbers and lets what Freeze
// stopped run again. Every handshake does the same.
func (l *Link) Thaw(ctx context.Context) error {
	for range settings {
		// One that is made again after a reconnect tells an old time. It counts as late.
		sent := time.Now()
		if err := l.request(ctx, "thaw", guestproto.TypeThaw, newThaw(), nil); err != nil {
			return err
		}
		if time.Since(sent) <= prompt {
			return nil
		}
	}
	return nil
}

// setClock sets the guest's clock in a session that nobody else uses yet.
func (l *Link) setClock(sess *session) error {
	for range settings {
		m, err := guestproto.NewMessage(l.ids.Add(1), guestproto.TypeThaw, newThaw())
		if err != nil {
			return err
		}
		sent := time.Now()
		answer, err := sess.call(l.ctx, m)
		switch {
		case errors.Is(err, errSessionEnded):
			return sess.fault(err)
		case err != nil:
			return err
		case answer.Error != nil:
			return guestFault("set the clock", answer.Error)
		}
		if time.Since(sent) <= prompt {
			return nil
		}
	}
	return nil
}
