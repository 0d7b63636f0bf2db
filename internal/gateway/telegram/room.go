package telegram

import (
	"context"
	"sync"
	"time"
)

// How far apart the messages and edits in a chat are: Telegram allows about one a second,
// in a group 20 a minute.
const (
	everyPrivate = time.Second
	everyGroup   = 3100 * time.Millisecond
)

// rooms has the room of each chat.
type rooms struct {
	mu  sync.Mutex
	ids map[int64]*room
}

func newRooms() *rooms { return &rooms{ids: map[int64]*room{}} }

func (rs *rooms) of(chat int64) *room {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.ids[chat]
	if r == nil {
		r = &room{chat: chat, every: everyPrivate, turn: make(chan struct{}, 1)}
		if chat < 0 {
			r.every = everyGroup
		}
		rs.ids[chat] = r
	}
	return r
}

// room is what the sessions of one chat share: there are several after /new.
type room struct {
	chat  int64
	every time.Duration
	turn  chan struct{} // is full while somebody writes

	mu   sync.Mutex
	next time.Time // when the next message or edit is allowed
	high int       // highest id of a message, people's and the bot's
	own  ring[int] // ids of the bot's
}

// enter waits until the caller may write; nobody else does until leave.
func (r *room) enter(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *room) leave() { <-r.turn }

// pause waits until the next message or edit is allowed.
func (r *room) pause(ctx context.Context) error {
	timer := time.NewTimer(time.Until(r.free()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// free returns when the next message or edit is allowed.
func (r *room) free() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// used says that there was a call, and that the next must be wait later at least.
func (r *room) used(wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = time.Now().Add(max(wait, r.every))
}

// note notes the id of a message of people's.
func (r *room) note(id int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.high = max(r.high, id)
}

// noteOwn notes the id of a message of the bot's.
func (r *room) noteOwn(id int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.high = max(r.high, id)
	if !r.own.has(id) {
		r.own.add(id)
	}
}

func (r *room) highest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.high
}

func (r *room) isOwn(id int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own.has(id)
}
