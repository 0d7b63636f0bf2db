package provider

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Patient is a Model that asks again where that may help: on 429, on 5xx, where the
// connection broke. It waits as long as the server says, else longer each time.
type Patient struct {
	Model Model
	// Attempts is how often it asks at most; 0 is 6.
	Attempts int
	// Waiting is told before each wait, may be nil.
	Waiting func(why error, pause time.Duration)
}

// The pauses between attempts.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = 20 * time.Second
	// maxAfter is how long a server may ask to wait; beyond it the user is told.
	maxAfter        = 2 * time.Minute
	defaultAttempts = 6
)

// Stream implements Model.
func (p *Patient) Stream(ctx context.Context, r Request, on func(Delta)) (Answer, error) {
	attempts := p.Attempts
	if attempts <= 0 {
		attempts = defaultAttempts
	}
	for n := 1; ; n++ {
		said := false
		answer, err := p.Model.Stream(ctx, r, func(d Delta) {
			said = said || d.Text != ""
			on(d)
		})
		t, ok := errors.AsType[*Error](err)
		if err == nil || !ok || !t.Retry {
			return answer, err
		}
		if t.After > maxAfter {
			t.Fault.Hint = fmt.Sprintf("it asks to wait for %v: send the message again then, or choose another model", t.After.Round(time.Second))
			return answer, err
		}
		if n >= attempts {
			t.Fault.Msg += fmt.Sprintf(" (asked %d times)", n)
			return answer, err
		}
		pause := pauseAfter(n, t)
		if p.Waiting != nil {
			p.Waiting(err, pause)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return answer, context.Cause(ctx)
		}
		if said {
			on(Delta{Again: true})
		}
	}
}

// pauseAfter returns how long to wait after the nth attempt. A connection that broke at
// once is tried again at once, first: after a machine slept, those that it had are dead.
func pauseAfter(n int, t *Error) time.Duration {
	if t.After > 0 {
		return t.After
	}
	if n == 1 && t.lost {
		return 0
	}
	pause := min(maxPause, firstPause<<(n-1))
	return pause/2 + rand.N(pause/2+1) //nolint:gosec // spreads load, guards nothing
}
