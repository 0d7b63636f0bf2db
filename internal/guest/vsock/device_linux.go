package vsock

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/port"
)

// Device is the pipe to the host. It implements port.Device: one reader, and
// writers that a deadline in the past frees.
type Device struct {
	mu       sync.Mutex
	changed  *sync.Cond
	conn     *os.File // nil while no host is there
	deadline time.Time
	failed   error // of the listener: final

	last *os.File // the connection that Read was on; the reader's alone
}

// OpenDevice listens for the host.
func OpenDevice(port uint32) (*Device, error) {
	l, err := listen(port)
	if err != nil {
		return nil, err
	}
	d := &Device{}
	d.changed = sync.NewCond(&d.mu)
	go d.run(l) // for the life of the VM
	return d, nil
}

func (d *Device) run(l *listener) {
	for {
		conn, err := l.accept()
		if err != nil {
			d.mu.Lock()
			d.failed = err
			d.changed.Broadcast()
			d.mu.Unlock()
			return
		}
		d.take(conn)
	}
}

// take makes conn the connection; the host gave up the one before.
func (d *Device) take(conn *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close() // frees its reader and writers
	}
	_ = conn.SetWriteDeadline(d.deadline) // sockets have deadlines
	d.conn = conn
	d.changed.Broadcast()
}

// drop forgets a connection that has ended.
func (d *Device) drop(conn *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == conn {
		_ = conn.Close()
		d.conn = nil
	}
}

// Read implements port.Device.
func (d *Device) Read(p []byte) (int, error) {
	d.mu.Lock()
	for d.conn == nil && d.failed == nil {
		d.changed.Wait()
	}
	conn, err := d.conn, d.failed
	d.mu.Unlock()
	if conn == nil {
		return 0, err
	}
	before := d.last
	d.last = conn
	if before != nil && before != conn {
		return 0, port.ErrNoHost // it was given up while nobody read
	}
	n, err := conn.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	d.drop(conn)
	d.last = nil
	return 0, port.ErrNoHost
}

// Write implements port.Device. What is written to a connection that ends meanwhile
// is lost, and that is no error: Read tells of the end.
func (d *Device) Write(p []byte) (int, error) {
	d.mu.Lock()
	for d.conn == nil && d.failed == nil && !d.late() {
		d.changed.Wait()
	}
	conn, err := d.conn, d.failed
	if d.late() {
		err = os.ErrDeadlineExceeded
	}
	d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := conn.Write(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return len(p), nil
	}
	return n, err
}

// late tells whether the deadline has passed. The caller holds mu.
func (d *Device) late() bool { return !d.deadline.IsZero() && !d.deadline.After(time.Now()) }

// SetWriteDeadline implements port.Device. A deadline in the future does not free a
// Write that waits for a host.
func (d *Device) SetWriteDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deadline = t
	d.changed.Broadcast()
	if d.conn == nil {
		return nil
	}
	return d.conn.SetWriteDeadline(t)
}
