package netstack

import (
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
)

// Limits bounds what one guest may cost the host. A field that is 0 has its default.
type Limits struct {
	// Connections is how many TCP connections the guest may have to the outside and to
	// listeners of the gateway, each; the next is reset. 1024.
	Connections int
	// Opening is how many of those may be under way to the outside; the guest's next
	// SYN is dropped, and it tries again. 128.
	Opening int
	// Inbound is how many connections into the guest Dial makes at once. 4096.
	Inbound int
	// Flows is how many pairs of UDP addresses are forwarded at once; datagrams of
	// others are dropped. 512.
	Flows int
	// FlowIdle is how long a UDP flow without datagrams is kept. One minute.
	FlowIdle time.Duration
	// DialTimeout protects Opening from destinations that do not answer. 30 seconds.
	DialTimeout time.Duration
	// Buffers is what the connections share, roughly, in each direction. 32 MiB.
	Buffers size.Bytes
	// Linger is how long the guest may take to acknowledge the end of a connection that
	// nobody uses any more. 10 seconds.
	Linger time.Duration
	// Probe is how often a guest that has ended its direction of a connection is asked
	// whether it still takes the other one. 30 seconds.
	Probe time.Duration
	// Queue bounds the frames that wait for the guest to take them. 8 MiB.
	Queue size.Bytes
	// DNSRate is how many questions in a second are answered, and twice as many at
	// once; others are dropped. 200.
	DNSRate int
	// DNSPending is how many questions wait for the resolver at once. 64.
	DNSPending int
	// Pins is how many addresses of names are remembered. 4096.
	Pins int
	// Denials is how many denials in a second are told, and five times as many at
	// once; all are counted. 4.
	Denials int
}

// Complete returns l with defaults for what is 0.
func (l Limits) Complete() Limits {
	set(&l.Connections, 1024)
	set(&l.Opening, 128)
	set(&l.Inbound, 4096)
	set(&l.Flows, 512)
	set(&l.FlowIdle, time.Minute)
	set(&l.DialTimeout, 30*time.Second)
	set(&l.Buffers, 32*size.MiB)
	set(&l.Linger, 10*time.Second)
	set(&l.Probe, 30*time.Second)
	set(&l.Queue, 8*size.MiB)
	set(&l.DNSRate, 200)
	set(&l.DNSPending, 64)
	set(&l.Pins, 4096)
	set(&l.Denials, 4)
	return l
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
