//go:build integration

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// witness is a program that prints numbers as fast as others let it, a hundred at a time,
// and knows what is in its memory: a token of its run, how often it was asked, and a
// pattern of 4 MB that changes with each question and has to have the sum that it had.
var witness = []string{"python3", "-uc", `
import itertools, json, os, socket, threading, time, zlib
token, asked = os.urandom(8).hex(), 0
pages = [bytearray(os.urandom(64) * 64) for _ in range(1024)]
def total():
    crc = 0
    for p in pages: crc = zlib.crc32(p, crc)
    return crc
expected = total()
def serve():
    global asked, expected
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('', 80)); s.listen(64)
    while True:
        c = None
        try:
            c, _ = s.accept()
            c.settimeout(5)
            if c.recv(1) == b'?':
                sound = total() == expected
                asked += 1
                pages[asked % 1024][:64] = os.urandom(64)
                expected = total()
                c.sendall(json.dumps(dict(token=token, asked=asked, sound=sound, host=socket.gethostname())).encode() + b'\n')
        except OSError: pass
        finally:
            if c: c.close()
threading.Thread(target=serve, daemon=True).start()
for i in itertools.count():
    print(i)
    if i % 100 == 99: time.sleep(.05)
`}

// testimony is what a witness says.
type testimony struct {
	Token string
	Asked int
	Sound bool
	Host  string
}

// memories is how often the witness of each instance is known to have been asked, by the
// token of its run: less than that means that a guest has gone back in time.
type memories struct {
	mu   sync.Mutex
	seen map[string]map[string]int // by id, then by token
	last map[string]string         // the newest token, by id
}

func newMemories() *memories {
	return &memories{seen: map[string]map[string]int{}, last: map[string]string{}}
}

// of returns what is known of an instance now.
func (m *memories) of(id string) map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.seen[id])
}

// inherit says that an instance began as another of which that was known.
func (m *memories) inherit(id string, known map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known == nil {
		known = map[string]int{}
	}
	m.seen[id] = known
}

// note adds what a witness has said, and returns the token of the run before, if that was
// another.
func (m *memories) note(id string, t testimony) (other string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen[id] == nil {
		m.seen[id] = map[string]int{}
	}
	m.seen[id][t.Token] = max(m.seen[id][t.Token], t.Asked)
	if last := m.last[id]; last != t.Token {
		other = last
	}
	m.last[id] = t.Token
	return other
}

// look asks the witness in an instance what is in its memory, through a public port, which
// wakes it. A connection that is cut is no defect: the VM may be being killed.
func (s *soak) look(ctx context.Context, ref string) error {
	info, err := s.client().Info(ctx, ref)
	if err != nil {
		return err
	}
	port := portOf(info)
	if port == 0 {
		return errCut // it is disabled
	}
	before := s.memory.of(info.ID)
	t, err := question(ctx, port)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", errCut, err)
	}
	if t.Host != info.Handle { // its port may be another's by now
		if now, err := s.client().Info(ctx, ref); err == nil && now.ID == info.ID && portOf(now) == port {
			s.defect("the port of %s leads to %s", info.Handle, t.Host)
		}
		return errCut
	}
	if !t.Sound {
		s.defect("the memory of %s is not what it was: %+v", info.Handle, t)
	}
	if t.Asked <= before[t.Token] {
		s.defect("%s has gone back: %+v, and it had been asked %d times", info.Handle, t, before[t.Token])
	}
	other := s.memory.note(info.ID, t)
	if info.Handle == steady && other != "" {
		s.defect("the program of %s began anew: %s, before that %s", steady, t.Token, other)
	}
	return nil
}

func portOf(i api.InstanceInfo) int {
	for _, e := range i.Endpoints {
		if e.GuestPort == 80 {
			return e.PublicPort
		}
	}
	return 0
}

// question asks the witness behind a port of the host.
func question(ctx context.Context, port int) (t testimony, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return t, err
	}
	defer conn.Close() //nolint:errcheck // all was read, or nobody wants it
	if until, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(until) // or the read waits for the daemon
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return t, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(line, &t)
}

// adopted notes as a defect every VM that a daemon has found running and could not take over.
func (s *soak) adopted() {
	s.t.Helper()
	for line := range strings.Lines(string(load(s.t, filepath.Join(s.home, "data", "aegisd.log")))) {
		if strings.Contains(line, `error="adopt `) {
			s.defect("%s", line)
		}
	}
}

// isSteady fails the test unless the steady instance is there, awake or not, and the
// program that it was.
func (s *soak) isSteady() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		err := s.look(ctx, steady)
		if err == nil {
			return
		}
		if ctx.Err() != nil || len(s.bad) > 0 {
			s.t.Fatalf("%s does not answer: %v\n%s", steady, err, s.log())
		}
		time.Sleep(100 * time.Millisecond)
	}
}
