package tether

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/message"
)

// The pauses between attempts to hand an agent a message: it may not listen yet, and no
// event tells when it does.
const (
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

// courier brings one instance's agent its messages. Its run is one goroutine, which alone
// touches it.
type courier struct {
	*Tether

	line  *line
	visit Visit // nil while the instance need not be awake
	http  *http.Client
}

func newCourier(t *Tether, l *line) *courier { return &courier{Tether: t, line: l} }

// run works until ctx ends, or the instance is deleted.
func (c *courier) run(ctx context.Context) {
	defer c.letGo()
	for {
		task := c.line.next()
		if task.letGo {
			c.letGo()
		}
		if task.bring {
			c.bring(ctx)
			if ctx.Err() == nil {
				continue
			}
		}
		if task.stay == 0 {
			c.letGo()
		}
		if !c.await(ctx, task.stay) {
			return
		}
	}
}

// await waits until there is something to do, and reports whether there will ever be.
func (c *courier) await(ctx context.Context, stay time.Duration) bool {
	var over <-chan time.Time
	if c.visit != nil {
		timer := time.NewTimer(stay)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-c.line.poked:
	case <-over:
	case <-c.line.gone:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// letGo lets the instance sleep.
func (c *courier) letGo() {
	if c.visit == nil {
		return
	}
	c.http.CloseIdleConnections()
	c.visit.Release()
	c.visit, c.http = nil, nil
}

// bring wakes the instance and brings its agent all that waits. What cannot be brought
// waits on.
func (c *courier) bring(ctx context.Context) {
	err := c.arrive(ctx)
	if err == nil {
		awake, done := c.line.whileAwake(ctx)
		err = c.bringAll(awake)
		done()
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, errAsleep) {
		return
	}
	select {
	case <-c.line.gone:
	default:
		c.log.WarnContext(ctx, "messages wait for the agent", logattr.Instance(c.line.id), logattr.Err(err))
	}
}

// arrive wakes the instance, unless it is held awake.
func (c *courier) arrive(ctx context.Context) error {
	if c.visit != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, err := c.instances.Visit(ctx, string(c.line.id), "messages for its agent")
	if err != nil {
		return err
	}
	c.visit = v
	c.http = &http.Client{
		Timeout:       c.limits.Receipt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return v.DialLocal(ctx, c.port) },
			DisableCompression: true,
			MaxConnsPerHost:    1,
			// An agent is hostile: a receipt has next to no head.
			MaxResponseHeaderBytes: 16 << 10,
		},
	}
	return nil
}

func (c *courier) bringAll(ctx context.Context) error {
	const few = 16
	for {
		frames, err := c.rows.Untaken(ctx, string(c.line.id), few)
		if err != nil || len(frames) == 0 {
			return err
		}
		c.line.saw(frames[len(frames)-1].Seq)
		for _, f := range frames {
			c.line.offered(f)
			if err := c.hand(ctx, f); err != nil {
				c.line.refused(f)
				return err
			}
			// Also when ctx has ended meanwhile: the agent has it.
			_, err := c.ledger.post(context.WithoutCancel(ctx), message.Entry{Instance: string(c.line.id), Taken: f.Seq}, func(s message.Stored) {
				if s.Err == nil {
					c.line.taken()
				}
			})
			if err != nil {
				return err
			}
		}
	}
}

// hand gives the agent a frame, as often as it takes.
func (c *courier) hand(ctx context.Context, f api.Frame) error {
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.limits.Patience,
		fault.New(fault.Unavailable, "nobody in the VM takes messages").By(fault.Program).
			WithHint("an agent listens on 127.0.0.1:%d; see: docs/TETHER.md", c.port))
	defer cancel()
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := c.post(ctx, body)
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-c.line.gone:
			timer.Stop()
			return errGone(c.line.id)
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w (at last: %w)", context.Cause(ctx), err)
		}
	}
}

// post makes one attempt to give the agent a frame.
func (c *courier) post(ctx context.Context, body []byte) error {
	url := fmt.Sprintf("http://127.0.0.1:%d/v1/tether/recv", c.port)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Aegis-Instance", string(c.line.id))
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // what it says is not read
	if resp.StatusCode/100 != 2 {
		return fault.New(fault.Unavailable, "the agent answers %d", resp.StatusCode).By(fault.Program)
	}
	return nil
}
