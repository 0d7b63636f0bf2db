package client

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// farewell bounds how long a client that gives up waits for the daemon to clear
// away what it asked for. The daemon does so in any case.
const farewell = 15 * time.Second

// halfCloser is a connection whose writing half can be closed, which tells the
// daemon that its client gives up.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// Run starts a program in an instance of its own, which lives until the program
// ends or the Attach is closed. It returns when the program runs. When ctx ends
// before that, Run returns its cause, and nothing is left of the instance unless the
// daemon takes very long to clear it away.
func (c *Client) Run(ctx context.Context, req api.RunRequest) (*Attach, error) {
	return c.attach(ctx, "/v1/run", req)
}

// attach makes a request that is answered by a change to the attach protocol.
func (c *Client) attach(ctx context.Context, path string, in any) (*Attach, error) {
	req, err := request(ctx, http.MethodPost, path, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", api.AttachProtocol)
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, explain(ctx, err)
	}
	conn, ok := raw.(halfCloser)
	if !ok {
		_ = raw.Close() // the first error tells more
		return nil, errors.New("the connection has no halves")
	}
	stop := context.AfterFunc(ctx, func() { giveUp(conn) })
	a, err := handshake(conn, req)
	if !stop() {
		// The daemon answered because it has cleared away, or Close waits for that.
		if a != nil {
			_ = a.Close() // ctx's cause is what counts
		}
		_ = conn.Close() // as above
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // the first error tells more
		return nil, explain(ctx, err)
	}
	return a, nil
}

func handshake(conn halfCloser, req *http.Request) (*Attach, error) {
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		err := failure(resp)
		_ = resp.Body.Close() // only read
		return nil, err
	}
	if got := resp.Header.Get("Upgrade"); got != api.AttachProtocol {
		return nil, fault.New(fault.Internal, "aegisd speaks %q, not %s", got, api.AttachProtocol).
			WithHint("client and daemon are of different versions; restart the daemon: aegis down, then aegis up")
	}
	return &Attach{conn: conn, in: frame.NewReader(in), instance: resp.Header.Get(api.InstanceHeader)}, nil
}

// giveUp tells the daemon that its client no longer wants what it asked for. The
// daemon closes the connection when nothing of it is left.
func giveUp(conn halfCloser) {
	// Errors mean that the connection has ended, which is the aim.
	_ = conn.CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(farewell))
}
