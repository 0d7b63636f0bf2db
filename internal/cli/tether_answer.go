package cli

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// conversation is one session with the agent in an instance.
type conversation struct {
	app     *app
	ref     string
	session api.Session
}

// send gives the agent a message.
func (c *conversation) send(ctx context.Context, m api.UserMessage) (api.TetherSent, error) {
	payload, err := json.Marshal(m)
	if err != nil {
		return api.TetherSent{}, err
	}
	return c.app.client().TetherSend(ctx, c.ref, api.Frame{Type: api.FrameUserMessage, Session: c.session, Payload: payload})
}

// cancel has the agent end what it does in the session.
func (c *conversation) cancel(ctx context.Context) error {
	_, err := c.app.client().TetherSend(ctx, c.ref, api.Frame{Type: api.FrameCancel, Session: c.session})
	return err
}

// answer waits for the agent's answer to a message, and returns its frame. show is called
// with each piece of its text as it comes; nil is nobody.
func (c *conversation) answer(ctx context.Context, sent api.TetherSent, show func(string) error) (api.Frame, error) {
	if show == nil {
		show = func(string) error { return nil }
	}
	var shown strings.Builder
	q := client.TetherQuery{Session: c.session, After: sent.IngressSeq, Types: []api.FrameType{api.FrameDelta, api.FrameDone}}
	for f, err := range c.app.client().TetherStream(ctx, c.ref, q) {
		if err != nil {
			return f, err
		}
		switch f.Type { //nolint:exhaustive // no others were asked for
		case api.FrameDelta:
			d := payloadOf[api.Delta](f)
			if d.ReplyTo != "" && d.ReplyTo != sent.MsgID {
				continue // of an answer to a message before
			}
			shown.WriteString(d.Text)
			if err := show(d.Text); err != nil {
				return f, err
			}
		case api.FrameDone:
			m := payloadOf[api.AssistantMessage](f)
			if m.ReplyTo != "" && m.ReplyTo != sent.MsgID {
				continue // as above
			}
			return f, show(remainder(shown.String(), m))
		}
	}
	if ctx.Err() != nil {
		return api.Frame{}, context.Cause(ctx)
	}
	return api.Frame{}, fault.New(fault.Unavailable, "the daemon ended before the agent answered").
		WithHint("the answer is kept: aegis tether read %s --after %d", c.ref, sent.IngressSeq)
}

// remainder is what is left to show of an answer of which a part was shown: the parts are
// outside of all guarantees, the answer is not.
func remainder(shown string, m api.AssistantMessage) string {
	rest, ok := strings.CutPrefix(m.Text, shown)
	if !ok {
		rest = "\n" + m.Text
	}
	rest = withImages(rest, m.Images)
	if !strings.HasSuffix(m.Text, "\n") || len(m.Images) > 0 {
		rest += "\n"
	}
	return rest
}
