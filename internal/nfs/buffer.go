package nfs

import "sync"

const (
	// MaxIO is the most that one READ or WRITE carries.
	MaxIO = 1 << 20
	// maxRecord bounds a request: the largest WRITE and its header.
	maxRequest = MaxIO + 4096
	smallSize  = 8 << 10
	// largeBuffers is how many buffers of the size of maxRequest a server uses at a
	// time: requests that need one wait.
	largeBuffers = 16
)

// buffer holds a request or a reply.
type buffer struct {
	b     []byte
	large bool
}

// Buffers go from one server to another, and away when nobody uses them.
var (
	small = sync.Pool{New: func() any { return &buffer{b: make([]byte, smallSize)} }}
	large = sync.Pool{New: func() any { return &buffer{b: make([]byte, maxRequest), large: true} }}
)

// buffers gives one server's requests their memory.
type buffers struct{ tokens chan struct{} }

func newBuffers() *buffers { return &buffers{tokens: make(chan struct{}, largeBuffers)} }

// get returns a buffer of at least n bytes, or nil if stop ends before there is one.
func (p *buffers) get(n int, stop <-chan struct{}) *buffer {
	if n <= smallSize {
		return small.Get().(*buffer)
	}
	select {
	case p.tokens <- struct{}{}:
		return large.Get().(*buffer)
	case <-stop:
		return nil
	}
}

func (p *buffers) put(b *buffer) {
	if b.large {
		large.Put(b)
		<-p.tokens
		return
	}
	small.Put(b)
}
