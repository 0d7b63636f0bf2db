package telegramtest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"
)

// Token is the bot's token.
const Token = "4242:telegramtest"

// BotName is the bot's user name.
const BotName = "aegis_test_bot"

const botID = 4242

// Entity is one of a message's formatting.
type Entity struct {
	Type     string `json:"type"`
	Offset   int    `json:"offset"`
	Length   int    `json:"length"`
	URL      string `json:"url,omitempty"`
	Language string `json:"language,omitempty"`
}

// Message is a message in a chat, as a person sees it.
type Message struct {
	ID       int
	FromBot  bool
	Text     string // or the caption
	Entities []Entity
	File     []byte // of a photo or a document
	Photo    bool   // the file is shown as a photo
	Edits    int
	At       time.Time
}

// Call is a call of a method, as the server was asked.
type Call struct {
	Method string
	Chat   int64
	At     time.Time
	Status int
}

// Fault makes calls fail. After says that the call takes effect all the same, and only
// the answer is lost.
type Fault struct {
	Method string
	Times  int
	Code   int
	Text   string
	After  bool
	Retry  int // seconds
}

// Server is the API, and the people who use it. Its methods may be called together.
type Server struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	chats    map[int64][]*Message
	nextID   map[int64]int // of messages; 0 is of all private chats
	updates  []update
	updateID int
	files    map[string][]byte
	calls    []Call
	faults   []Fault
	rates    map[int64]*pacer
	poll     chan struct{} // closed to end the poll under way; nil while there is none
	repeat   bool
	refuse   bool
	deleted  map[int64][]Message
}

// New returns a server without chats.
func New() *Server {
	return &Server{
		changed: make(chan struct{}), chats: map[int64][]*Message{}, nextID: map[int64]int{}, updateID: 1000,
		files: map[string][]byte{}, rates: map[int64]*pacer{}, deleted: map[int64][]Message{},
	}
}

// tell says that something has changed. The caller holds mu.
func (s *Server) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Wait waits until is holds. is is called whenever something has changed.
func (s *Server) Wait(ctx context.Context, is func() bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if is() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Messages returns what is in a chat, oldest first.
func (s *Server) Messages(chat int64) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	for _, m := range s.chats[chat] {
		out = append(out, *m)
	}
	return out
}

// FromBot returns what the bot has written in a chat.
func (s *Server) FromBot(chat int64) []Message {
	return slices.DeleteFunc(s.Messages(chat), func(m Message) bool { return !m.FromBot })
}

// Deleted returns what the bot has deleted in a chat.
func (s *Server) Deleted(chat int64) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.deleted[chat])
}

// Calls returns the calls of a method, or all for "".
func (s *Server) Calls(method string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.calls), func(c Call) bool { return method != "" && c.Method != method })
}

// Unacknowledged returns how many updates the bot has not acknowledged.
func (s *Server) Unacknowledged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.updates)
}

// Fail makes calls fail. Faults of one method take their turns.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// Repeat makes every poll that has updates have each twice.
func (s *Server) Repeat(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repeat = on
}

// RefuseEntities makes the server find fault with all formatting.
func (s *Server) RefuseEntities(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = on
}

// CutPolls cuts the connection of the poll under way.
func (s *Server) CutPolls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, Fault{Method: "getUpdates", Times: 1, Code: cut})
	s.endPoll()
}

// endPoll ends the poll under way. The caller holds mu.
func (s *Server) endPoll() {
	if s.poll != nil {
		close(s.poll)
		s.poll = nil
	}
}

// Client is an http.Client of the server without a network: it can be used under
// testing/synctest.
type Client struct{ *Server }

// Do answers a request.
func (c Client) Do(req *http.Request) (resp *http.Response, err error) {
	w := httptest.NewRecorder()
	defer func() {
		if r := recover(); r != nil { // http.ErrAbortHandler: a connection that is cut
			resp, err = nil, http.ErrServerClosed
		}
	}()
	c.ServeHTTP(w, req)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}
