package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// The first and the longest pause before something is tried again.
const (
	minPause = 100 * time.Millisecond
	maxPause = 10 * time.Second
)

// backoff is the pause before the next attempt. It doubles.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{minPause} }

func (b *backoff) reset() { b.next = minPause }

// wait waits, or until ctx ends.
func (b *backoff) wait(ctx context.Context) {
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, maxPause)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// encode returns the payload of a message.
func encode(m api.UserMessage) (json.RawMessage, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	return b, nil
}
