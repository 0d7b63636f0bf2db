package tether

import (
	"context"
	"sync"

	"github.com/xfeldman/aegisvm/internal/message"
)

// ledger stores entries, many in one transaction. Its goroutine ends with close.
type ledger struct {
	rows Rows
	keep message.Keep
	in   chan *posting
	done chan struct{}

	mu     sync.RWMutex // held for reading by those who post; close waits for them
	closed bool
}

// posting is an entry on its way.
type posting struct {
	message.Entry

	// then is called with what became of it, by the ledger, before whoever posted it
	// returns. It must not take long.
	then   func(message.Stored)
	answer chan message.Stored // buffered
}

// maxBatch bounds a transaction, and how many postings queue up before senders wait.
const maxBatch = 64

func newLedger(rows Rows, keep message.Keep) *ledger {
	l := &ledger{rows: rows, keep: keep, in: make(chan *posting, maxBatch), done: make(chan struct{})}
	go l.run()
	return l
}

// post stores an entry and returns when it is durable. If ctx ends before, it may be stored
// nevertheless.
func (l *ledger) post(ctx context.Context, e message.Entry, then func(message.Stored)) (message.Stored, error) {
	p := &posting{Entry: e, then: then, answer: make(chan message.Stored, 1)}
	if err := l.enqueue(ctx, p); err != nil {
		return message.Stored{}, err
	}
	select {
	case s := <-p.answer:
		return s, s.Err
	case <-ctx.Done():
		return message.Stored{}, context.Cause(ctx)
	}
}

func (l *ledger) enqueue(ctx context.Context, p *posting) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return errClosing
	}
	select {
	case l.in <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close stores what was posted and ends the ledger.
func (l *ledger) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.in)
	}
	l.mu.Unlock()
	<-l.done
}

func (l *ledger) run() {
	defer close(l.done)
	for p := range l.in {
		l.store(l.gather(p))
	}
}

// gather returns a posting and those that queue behind it.
func (l *ledger) gather(first *posting) []*posting {
	batch := []*posting{first}
	for len(batch) < maxBatch {
		select {
		case p, ok := <-l.in:
			if !ok {
				return batch
			}
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

func (l *ledger) store(batch []*posting) {
	entries := make([]message.Entry, len(batch))
	for i, p := range batch {
		entries[i] = p.Entry
	}
	// Of no caller's context: it is for all of them.
	stored, err := l.rows.AppendFrames(context.Background(), entries, l.keep)
	for i, p := range batch {
		s := message.Stored{Err: err}
		if err == nil {
			s = stored[i]
		}
		p.then(s)
		p.answer <- s
	}
}
