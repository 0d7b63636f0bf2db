package nfs

import (
	"hash/maphash"
	"sync"
)

// maxReplays is how many answers are kept. A kernel repeats what it has no answer to
// after its connection was lost: as much as it had in flight.
const maxReplays = 1024

// replays remembers the answers to requests that must not be done twice.
type replays struct {
	seed maphash.Seed

	mu    sync.Mutex
	known map[replayKey]*replay
	order []replayKey
}

// replayKey tells requests apart: by their number, and by what they say, because
// numbers begin anew.
type replayKey struct {
	xid uint32
	sum uint64
}

type replay struct {
	done   chan struct{}
	answer []byte // set before done; without its record mark
}

func newReplays() *replays {
	return &replays{seed: maphash.MakeSeed(), known: map[replayKey]*replay{}}
}

// once has do write the answer to msg to out, or takes the one that was given before.
func (p *replays) once(c call, msg []byte, out *reply, do func()) {
	k := replayKey{c.xid, maphash.Bytes(p.seed, msg)}
	p.mu.Lock()
	if old, ok := p.known[k]; ok {
		p.mu.Unlock()
		<-old.done
		out.b = append(out.b[:0], old.answer...)
		return
	}
	if len(p.order) == maxReplays {
		delete(p.known, p.order[0])
		p.order = p.order[1:]
	}
	mine := &replay{done: make(chan struct{})}
	p.known[k] = mine
	p.order = append(p.order, k)
	p.mu.Unlock()
	do()
	mine.answer = append([]byte(nil), out.b...)
	close(mine.done)
}
