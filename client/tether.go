package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// TetherQuery says which frames to read. Its zero value is all that are stored.
type TetherQuery struct {
	Session   api.Session   // empty fields are any
	After     int64         // only frames with a higher Seq
	Before    int64         // only frames with a lower Seq, the newest of them; 0 is no bound
	Limit     int           // frames in an answer: 0 is 50, at most 200
	Wait      time.Duration // how long to wait for the first, at most 30 s
	Types     []api.FrameType
	ReplyToID string // only what answers the message of this MsgID
	// Stored makes a stream begin with what is stored also where After is 0. Without it such
	// a stream begins with what comes.
	Stored bool
}

func (q TetherQuery) values() url.Values {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" && value != "0" {
			v.Set(key, value)
		}
	}
	set("channel", q.Session.Channel)
	set("session_id", q.Session.ID)
	set("after_seq", strconv.FormatInt(q.After, 10))
	set("before_seq", strconv.FormatInt(q.Before, 10))
	set("limit", strconv.Itoa(q.Limit))
	set("wait_ms", strconv.FormatInt(q.Wait.Milliseconds(), 10))
	set("reply_to_msg_id", q.ReplyToID)
	if q.Stored {
		v.Set("after_seq", strconv.FormatInt(q.After, 10))
	}
	for i, t := range q.Types {
		if i == 0 {
			v.Set("types", string(t))
		} else {
			v.Set("types", v.Get("types")+","+string(t))
		}
	}
	return v
}

// TetherSend gives a frame to the agent in an instance, and wakes it. It returns when the
// frame is stored: from then on it reaches the agent, once. A frame without MsgID is
// given one; sent again with the MsgID that it had it is the same frame.
func (c *Client) TetherSend(ctx context.Context, ref string, f api.Frame) (api.TetherSent, error) {
	var out api.TetherSent
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/tether"), f, &out)
	return out, err
}

// TetherPoll reads stored frames, and waits for one where there is none. Deltas are among
// them if q.Types names them.
func (c *Client) TetherPoll(ctx context.Context, ref string, q TetherQuery) (api.TetherPage, error) {
	var out api.TetherPage
	return out, c.call(ctx, http.MethodGet, at(ref, "/tether/poll?"+q.values().Encode()), &out)
}

// TetherStream returns frames as they come, deltas among them, until ctx or the daemon
// ends. With q.After or q.Stored it begins with those stored since.
func (c *Client) TetherStream(ctx context.Context, ref string, q TetherQuery) iter.Seq2[api.Frame, error] {
	return lines[api.Frame](ctx, c, http.MethodGet, at(ref, "/tether/stream?"+q.values().Encode()))
}

// TetherWatermark returns how far a channel's reader has read.
func (c *Client) TetherWatermark(ctx context.Context, ref, channel string) (api.Watermark, error) {
	var out api.Watermark
	return out, c.call(ctx, http.MethodGet, at(ref, "/tether/watermark?"+url.Values{"channel": {channel}}.Encode()), &out)
}

// SetTetherWatermark says how far a channel's reader has read. What is further already stays.
func (c *Client) SetTetherWatermark(ctx context.Context, ref string, w api.Watermark) (api.Watermark, error) {
	var out api.Watermark
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/tether/watermark"), w, &out)
	return out, err
}
