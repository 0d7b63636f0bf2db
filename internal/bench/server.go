package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/xfeldman/aegisvm/api"
)

// servingPort is where servers listen in their guests.
const servingPort = 7

// serving is the program of servers. It says when it listens, and answers each line, a
// number, with as many bytes. It makes no threads, which would cost more than the answer.
const serving = `
import selectors, socket
block = bytes(1 << 20)
ready = selectors.DefaultSelector()
ln = socket.create_server(('', 7), backlog=64)
ready.register(ln, selectors.EVENT_READ)
print('ready', flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj is ln:
            ready.register(ln.accept()[0], selectors.EVENT_READ)
            continue
        c = key.fileobj
        try:
            line = c.recv(64)
            n = int(line or 0)
            while n > 0:
                c.sendall(block[:min(n, len(block))]); n -= len(block)
        except OSError: # a pause cuts connections off
            line = b''
        if not line:
            ready.unregister(c); c.close()
`

// server is an instance of the product that serves, on a public port.
type server struct {
	*product

	name string
	addr string // of the port
}

// serve returns the server that figures share. It owns its memory, having slept and woken
// once, and is awake.
func (w *world) serve(ctx context.Context) (*server, error) {
	if w.server != nil {
		return w.server, nil
	}
	p, err := w.product(ctx)
	if err != nil {
		return nil, err
	}
	s, err := p.newServer(ctx, "server")
	if err != nil {
		return nil, err
	}
	if err := s.hibernate(ctx); err != nil {
		return nil, err
	}
	if _, err := s.firstByte(ctx); err != nil {
		return nil, err
	}
	w.server = s
	return s, nil
}

// newServer starts a server, and returns when it listens. It is a copy-on-write clone of the
// template.
func (p *product) newServer(ctx context.Context, name string) (*server, error) {
	made, err := p.launch(ctx, name, []api.ExposeRequest{{Port: servingPort, Protocol: "tcp"}}, "python3", "-c", serving)
	if err != nil {
		return nil, err
	}
	if len(made.Endpoints) != 1 {
		return nil, errNoPort
	}
	s := &server{p, name, net.JoinHostPort(api.Loopback, strconv.Itoa(made.Endpoints[0].PublicPort))}
	_, err = s.firstByte(ctx)
	return s, err
}

// firstByte connects to the port and asks for one byte. It returns how long that took.
func (s *server) firstByte(ctx context.Context) (float64, error) {
	return timed(func() error { return fetch(ctx, s.dial, 1) })
}

// dial connects to the port.
func (s *server) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.addr)
}

// hibernate puts the server to sleep on disk.
func (s *server) hibernate(ctx context.Context) error { return do(s.client.Hibernate(ctx, s.name)) }

// ask asks a server for n bytes, takes them all, and closes the connection.
func ask(ctx context.Context, conn net.Conn, n int64) error {
	defer conn.Close() //nolint:errcheck // all was read
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := fmt.Fprintln(conn, n); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, conn, n); err != nil {
		return fmt.Errorf("read %d bytes: %w", n, err)
	}
	return nil
}
