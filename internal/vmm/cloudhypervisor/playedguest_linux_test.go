package cloudhypervisor

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// listensAfter is how long a played guest takes to listen: connections before are refused.
const listensAfter = 50 * time.Millisecond

// playedGuest is the guest of a player. Its memory is what the suite's guest remembers.
type playedGuest struct {
	player *player
	card   bool
	guest  vmmtest.Guest
	frozen []byte // its memory, while it is paused
	begun  time.Time

	mu      sync.Mutex
	changed *sync.Cond
	paused  bool
	resets  bool     // the next connection is reset after it was accepted, as after a restore
	conn    net.Conn // of the pipe; nil while no host is there
}

func newPlayedGuest(p *player, card bool) *playedGuest {
	g := &playedGuest{player: p, card: card, begun: time.Now()}
	g.changed = sync.NewCond(&g.mu)
	g.guest.Disk = p.openDisk
	return g
}

// listen is the VMM's end of hybrid vsock.
func (g *playedGuest) listen(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go g.serve(conn)
		}
	}()
	go func() {
		if w, err := g.guest.Serve(g); err == nil {
			g.player.order(w) // and then it says no more
		}
	}()
	return nil
}

// serve connects a client to the port that it asks for.
func (g *playedGuest) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	var port uint32
	if _, scanErr := fmt.Sscanf(line, "CONNECT %d\n", &port); err != nil || scanErr != nil {
		_ = conn.Close()
		return
	}
	g.running()
	if time.Since(g.begun) < listensAfter || port == guestproto.CardPort && !g.card || port != guestproto.CardPort && port != guestproto.VsockPort {
		_ = conn.Close() // nobody listens
		return
	}
	if _, err := fmt.Fprintf(conn, "OK %d\n", 1<<30); err != nil {
		return
	}
	g.mu.Lock()
	resets := g.resets
	g.resets = false
	g.mu.Unlock()
	if resets {
		_ = conn.Close()
		return
	}
	if port == guestproto.CardPort {
		g.frames(conn)
		return
	}
	g.mu.Lock()
	if g.conn != nil {
		_ = g.conn.Close()
	}
	g.conn = &readAhead{conn, r}
	g.changed.Broadcast()
	g.mu.Unlock()
}

// frames sends a frame now and then, until the client goes.
func (g *playedGuest) frames(conn net.Conn) {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, vmm.CardAddress[:]...)
	frame = append(append(frame, 0x88, 0xb5), make([]byte, 46)...)
	for {
		g.running()
		header := binary.BigEndian.AppendUint32(nil, uint32(len(frame)))
		if _, err := conn.Write(append(header, frame...)); err != nil {
			_ = conn.Close()
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// running waits while the guest is paused.
func (g *playedGuest) running() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.paused {
		g.changed.Wait()
	}
}

// Read implements io.Reader for the suite's guest.
func (g *playedGuest) Read(b []byte) (int, error) {
	for {
		g.mu.Lock()
		for g.conn == nil || g.paused {
			g.changed.Wait()
		}
		conn := g.conn
		g.mu.Unlock()
		n, err := conn.Read(b)
		g.running() // what came while it is paused waits
		if n > 0 {
			return n, nil
		}
		if err != nil {
			g.drop(conn)
		}
	}
}

// Write implements io.Writer for the suite's guest. What no host reads is lost.
func (g *playedGuest) Write(b []byte) (int, error) {
	g.mu.Lock()
	for g.paused {
		g.changed.Wait()
	}
	conn := g.conn
	g.mu.Unlock()
	if conn != nil {
		if _, err := conn.Write(b); err != nil {
			g.drop(conn)
		}
	}
	return len(b), nil
}

func (g *playedGuest) drop(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conn == conn {
		_ = conn.Close()
		g.conn = nil
	}
}

// pause freezes the guest, and writes its memory where the machine has it.
func (g *playedGuest) pause(memory *os.File) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = true
	b, err := json.Marshal(string(g.guest.Memory()))
	if err != nil {
		return err
	}
	g.frozen = make([]byte, (len(b)/4096+1)*4096)
	copy(g.frozen, b)
	if !g.player.config.Memory.Zones[0].Shared {
		return nil // copy-on-write: it is this process's alone
	}
	_, err = memory.WriteAt(g.frozen, 0)
	return err
}

func (g *playedGuest) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
	g.changed.Broadcast()
}

// load gives a guest the memory of another, and leaves it paused.
func (g *playedGuest) load(memory *os.File) error {
	var text string
	if err := json.NewDecoder(io.NewSectionReader(memory, 0, 1<<20)).Decode(&text); err != nil {
		return errors.Join(errors.New("no guest in the memory"), err)
	}
	g.mu.Lock()
	g.paused = true
	g.begun = time.Time{} // it listens
	g.resets = true
	g.mu.Unlock()
	if err := g.guest.Remember([]byte(text)); err != nil {
		return err
	}
	return g.pause(memory)
}

// readAhead is a connection of which something was read already.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

func (c *readAhead) Read(b []byte) (int, error) { return c.r.Read(b) }
