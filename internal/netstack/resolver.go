package netstack

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Resolver answers the guest's questions. Its methods may be called together.
type Resolver interface {
	// Resolve returns the answer to q, of which RCode, Answers and Authorities are
	// used. The guest gets SERVFAIL for an error.
	Resolve(ctx context.Context, q dnsmessage.Question) (dnsmessage.Message, error)
}

const resolvConf = "/etc/resolv.conf"

// hostResolver asks the servers that the host asks. They may be on the host's
// loopback or its LAN: it is the host that asks, not the guest.
type hostResolver struct {
	path   string
	dial   DialFunc
	system *net.Resolver
	// native means that questions for addresses go to the system, which knows more
	// than its resolv.conf says.
	native bool

	mu      sync.Mutex
	checked time.Time
	written time.Time // when the file was
	conf    conf
	first   int // the server that answered last
}

// HostResolver returns a resolver that asks the host's name servers, for every type
// of record. Where the host names none, and for addresses on macOS, the system is
// asked instead.
func HostResolver() Resolver {
	return &hostResolver{
		path: resolvConf, dial: new(net.Dialer).DialContext, system: net.DefaultResolver,
		native: runtime.GOOS == "darwin",
	}
}

// confAge is for how long resolv.conf is taken not to have changed.
const confAge = 5 * time.Second

// servers returns the configuration, and the server to begin with.
func (r *hostResolver) servers() (c conf, first int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checked.IsZero() || time.Since(r.checked) > confAge {
		r.checked = time.Now()
		st, err := os.Stat(r.path)
		switch {
		case err != nil:
			r.conf, r.written = conf{}, time.Time{}
		case !st.ModTime().Equal(r.written):
			r.conf, r.written, r.first = readConf(r.path), st.ModTime(), 0
		}
	}
	return r.conf, r.first
}

func (r *hostResolver) answered(server int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first = server
}

// Resolve implements Resolver.
func (r *hostResolver) Resolve(ctx context.Context, q dnsmessage.Question) (dnsmessage.Message, error) {
	c, first := r.servers()
	if len(c.servers) == 0 || r.native && (q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeAAAA) {
		return askSystem(ctx, r.system, q)
	}
	var last error
	for range c.attempts {
		for i := range c.servers {
			server := (first + i) % len(c.servers)
			m, err := r.ask(ctx, c.servers[server], c.timeout, q)
			if err == nil && !failed(m.RCode) {
				r.answered(server)
				return m, nil
			}
			if err == nil {
				err = errors.New(m.RCode.String())
			}
			last = err
			if ctx.Err() != nil {
				return dnsmessage.Message{}, context.Cause(ctx)
			}
		}
	}
	return dnsmessage.Message{}, last
}

// failed reports whether another server may know better.
func failed(c dnsmessage.RCode) bool {
	return c == dnsmessage.RCodeServerFailure || c == dnsmessage.RCodeRefused || c == dnsmessage.RCodeNotImplemented
}

// ask asks one server, over UDP and then, if the answer is too long for that, TCP.
func (r *hostResolver) ask(ctx context.Context, server netip.AddrPort, limit time.Duration, q dnsmessage.Question) (dnsmessage.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m, err := r.exchange(ctx, "udp", server, q)
	if err == nil && m.Truncated {
		return r.exchange(ctx, "tcp", server, q)
	}
	return m, err
}

func (r *hostResolver) exchange(ctx context.Context, network string, server netip.AddrPort, q dnsmessage.Question) (dnsmessage.Message, error) {
	id := uint16(rand.Uint32()) //nolint:gosec // the generator is a strong one, and the port is random too
	query, err := packQuery(id, q)
	if err != nil {
		return dnsmessage.Message{}, err
	}
	c, err := r.dial(ctx, network, server.String())
	if err != nil {
		return dnsmessage.Message{}, err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if network == "tcp" {
		return exchangeTCP(c, query, id, q)
	}
	if _, err := c.Write(query); err != nil {
		return dnsmessage.Message{}, err
	}
	buf := make([]byte, maxDatagram)
	for { // what is no answer to the question may be forged
		n, err := c.Read(buf)
		if err != nil {
			return dnsmessage.Message{}, err
		}
		if m, err := unpackAnswer(buf[:n], id, q); err == nil {
			return m, nil
		}
	}
}

func exchangeTCP(c net.Conn, query []byte, id uint16, q dnsmessage.Question) (dnsmessage.Message, error) {
	if err := writeMessage(c, query); err != nil {
		return dnsmessage.Message{}, err
	}
	b, err := readMessage(c)
	if err != nil {
		return dnsmessage.Message{}, err
	}
	return unpackAnswer(b, id, q)
}

// ednsSize is what an answer may have over UDP without being cut by the path.
const ednsSize = 1232

func packQuery(id uint16, q dnsmessage.Question) ([]byte, error) {
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions:   []dnsmessage.Question{q},
		Additionals: []dnsmessage.Resource{edns(ednsSize)},
	}
	return m.Pack()
}

func edns(size int) dnsmessage.Resource {
	var h dnsmessage.ResourceHeader
	_ = h.SetEDNS0(size, dnsmessage.RCodeSuccess, false) // sizes are constant
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}}
}

var errNoAnswer = errors.New("this is no answer to the question")

func unpackAnswer(b []byte, id uint16, q dnsmessage.Question) (dnsmessage.Message, error) {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		return m, err
	}
	if m.ID != id || !m.Response || len(m.Questions) != 1 || m.Questions[0].Type != q.Type ||
		m.Questions[0].Class != q.Class || canonical(m.Questions[0].Name) != canonical(q.Name) {
		return m, errNoAnswer
	}
	return m, nil
}
