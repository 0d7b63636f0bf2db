package netstack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	readSize  = 64 << 10  // of the reader's buffer: many small frames in one call
	writeSize = 128 << 10 // the writer gathers up to this much for one call
)

// writeBuffers is what writers gather in. Most guests are sent nothing most of the
// time.
var writeBuffers = sync.Pool{New: func() any { return new([writeSize]byte) }}

// attachment is one connection to a guest's network card. It ends when the
// connection does, and is not used again; frames that wait in it go with it.
type attachment struct {
	conn  net.Conn
	limit int // of bytes
	wg    sync.WaitGroup

	mu     sync.Mutex
	ready  sync.Cond // queue or ended has changed
	queue  []*stack.PacketBuffer
	queued int // bytes in queue and in the hands of the writer
	ended  bool
	over   chan struct{} // closed with ended
}

func newAttachment(conn net.Conn, limit int) *attachment {
	a := &attachment{conn: conn, limit: limit, over: make(chan struct{})}
	a.ready.L = &a.mu
	return a
}

// put queues a frame for the guest, and reports whether there was room for it. It
// never waits.
func (a *attachment) put(pkt *stack.PacketBuffer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	cost := pkt.MemSize()
	if a.ended || a.queued+cost > a.limit {
		return false
	}
	a.queued += cost
	a.queue = append(a.queue, pkt.IncRef())
	if len(a.queue) == 1 {
		a.ready.Signal()
	}
	return true
}

// take returns all that waits, and nil after the end. spent is what take returned
// before, now written.
func (a *attachment) take(spent []*stack.PacketBuffer) []*stack.PacketBuffer {
	cost := 0
	for i, pkt := range spent {
		cost += pkt.MemSize()
		pkt.DecRef()
		spent[i] = nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queued -= cost
	for len(a.queue) == 0 && !a.ended {
		a.ready.Wait()
	}
	if a.ended {
		return nil
	}
	batch := a.queue
	a.queue = spent[:0]
	return batch
}

// write carries frames to the guest until the attachment ends. It has no deadline: a
// paused guest takes no frames for as long as it is paused, and half a frame would
// put the connection out of step. Ending the attachment ends the wait.
func (a *attachment) write() {
	defer a.end()
	for batch := a.take(nil); batch != nil; batch = a.take(batch) {
		if a.writeBatch(batch) != nil {
			return
		}
	}
}

func (a *attachment) writeBatch(batch []*stack.PacketBuffer) error {
	room := writeBuffers.Get().(*[writeSize]byte) //nolint:forcetypeassert // the pool has no others
	defer writeBuffers.Put(room)
	buf := room[:0]
	for _, pkt := range batch {
		if len(buf)+lengthSize+pkt.Size() > cap(buf) {
			if _, err := a.conn.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		buf = appendFrame(buf, pkt)
	}
	_, err := a.conn.Write(buf)
	return err
}

// appendFrame appends the frame in pkt, with its length before it.
func appendFrame(buf []byte, pkt *stack.PacketBuffer) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(pkt.Size())) //nolint:gosec // a frame
	views, offset := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		skip := min(offset, len(b))
		buf = append(buf, b[skip:]...)
		offset -= skip
	}
	return buf
}

// end closes the connection and drops what waits. It is idempotent.
func (a *attachment) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return
	}
	a.ended = true
	close(a.over)
	a.ready.Signal()
	_ = a.conn.Close() // what was to be sent is of no use to anybody
	for _, pkt := range a.queue {
		pkt.DecRef()
	}
	a.queue = nil
}

// Attach connects the network to a guest's card: frames, each after its length as
// u32 big-endian, as vmm.Machine.AttachNetwork carries them. The network owns conn.
// It replaces the connection before, and may be used at once. The channel is closed
// when conn has ended, by itself or by Detach, Close or the next Attach.
func (n *Network) Attach(conn net.Conn) (ended <-chan struct{}) {
	n.attaching.Lock()
	defer n.attaching.Unlock()
	n.detach()
	a := newAttachment(conn, int(n.limits.Queue))
	if n.ctx.Err() != nil {
		a.end()
		return a.over
	}
	n.serving = a
	n.nic.plug(a)
	a.wg.Go(a.write)
	a.wg.Go(func() {
		defer a.end()
		defer n.nic.unplug(a) // so that Dial waits for the next
		n.read(a)
	})
	return a.over
}

// Detach ends the connection that Attach took, and waits for what served it.
// Connections of the guest stay; they go on with the next Attach.
func (n *Network) Detach() {
	n.attaching.Lock()
	defer n.attaching.Unlock()
	n.detach()
}

func (n *Network) detach() {
	if n.serving != nil {
		n.nic.unplug(n.serving)
		n.serving.end()
		n.serving.wg.Wait()
		n.serving = nil
	}
}

// read takes frames from the guest until the connection ends.
func (n *Network) read(a *attachment) {
	r := bufio.NewReaderSize(a.conn, readSize)
	for {
		frame, err := readFrame(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				n.log.Debug("the connection to the network card broke", logattr.Err(err))
			}
			return
		}
		n.admit(frame)
	}
}
