package nfs

import (
	"hash/fnv"
	"sync"
)

// maxReplays is how many answers are kept. A kernel repeats what it has no answer to
// after its connection was lost: as much as it had in flight.
const maxReplays = 1024

// replays remembers the answers to requests that must not be done twice. With a
// journal the next server remembers them too.
type replays struct {
	journal *journal // nil for none

	mu    sync.Mutex
	known map[replayKey]*replay
	ring  [maxReplays]replayKey // the last ones, in the order in which they came
	turn  uint32                // of the one that came last
}

// replayKey tells requests apart: by their number, and by what they say, because
// numbers begin anew.
type replayKey struct {
	xid uint32
	sum uint64
}

func keyOf(c call, msg []byte) replayKey {
	h := fnv.New64a()
	_, _ = h.Write(msg) // never fails
	return replayKey{c.xid, h.Sum64()}
}

type replay struct {
	done   chan struct{}
	answer []byte // set before done; without its record mark
	begun  bool   // by a server that died over it: perhaps it was done, perhaps not
}

// newReplays returns what is remembered in the journal, if there is one.
func newReplays(j *journal) (*replays, error) {
	p := &replays{journal: j, known: map[replayKey]*replay{}}
	if j == nil {
		return p, nil
	}
	old, err := j.load()
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	close(done)
	for _, e := range old {
		p.ring[e.slot] = e.key
		p.known[e.key] = &replay{done: done, answer: e.answer, begun: e.answer == nil}
		p.turn = max(p.turn, e.turn)
	}
	return p, nil
}

// once has do write the answer to msg to out, or takes the one that was given before.
// do is told if the request may have been done already, by a server that has died
// since. An error is the journal's: the request has been answered all the same.
func (p *replays) once(c call, msg []byte, out *reply, do func(again bool)) error {
	k := keyOf(c, msg)
	p.mu.Lock()
	old, again := p.known[k]
	if again && !old.begun {
		p.mu.Unlock()
		<-old.done
		out.b = append(out.b[:0], old.answer...)
		return nil
	}
	p.turn++
	e := journaled{slot: int(p.turn % maxReplays), turn: p.turn, key: k}
	delete(p.known, p.ring[e.slot])
	mine := &replay{done: make(chan struct{})}
	p.known[k], p.ring[e.slot] = mine, k
	p.mu.Unlock()
	defer close(mine.done)
	err := p.note(e)
	do(again)
	mine.answer = append([]byte{}, out.b...)
	e.answer = mine.answer
	if err == nil {
		err = p.note(e)
	}
	return err
}

func (p *replays) note(e journaled) error {
	if p.journal == nil {
		return nil
	}
	return p.journal.put(e)
}
