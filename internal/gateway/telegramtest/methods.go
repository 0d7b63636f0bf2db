package telegramtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

func (s *Server) getUpdates(r *request) (any, *failure) {
	timer := time.NewTimer(time.Duration(r.number("timeout")) * time.Second)
	defer timer.Stop()
	offset, limit := r.number("offset"), r.number("limit")
	if limit <= 0 || limit > 100 {
		limit = 100
	}
	s.mu.Lock()
	s.endPoll() // a second one ends the first
	mine := make(chan struct{})
	s.poll = mine
	s.acknowledge(offset)
	for {
		out := s.waiting(limit)
		changed := s.changed
		if len(out) > 0 || r.number("timeout") == 0 {
			s.poll = nil
			s.mu.Unlock()
			return out, nil
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			s.mu.Lock()
			if s.poll == mine {
				s.poll = nil
			}
			s.mu.Unlock()
			return []any{}, nil
		case <-r.Context().Done():
			return []any{}, nil
		case <-mine:
			s.cutOne()
			return nil, &failure{http.StatusConflict, "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running", 0}
		}
		s.mu.Lock()
		if s.poll != mine {
			s.mu.Unlock()
			s.cutOne()
			return nil, &failure{http.StatusConflict, "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running", 0}
		}
	}
}

// acknowledge forgets the updates before offset. The caller holds mu.
func (s *Server) acknowledge(offset int) {
	n := len(s.updates)
	s.updates = slices.DeleteFunc(s.updates, func(u update) bool { return u.id < offset })
	if len(s.updates) < n {
		s.tell()
	}
}

// cutOne cuts the connection, if CutPolls was called.
func (s *Server) cutOne() {
	s.mu.Lock()
	i := slices.IndexFunc(s.faults, func(f Fault) bool { return f.Method == "getUpdates" && f.Code == cut })
	if i >= 0 {
		s.faults = slices.Delete(s.faults, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 {
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) waiting(limit int) []map[string]any {
	out := []map[string]any{}
	for _, u := range s.updates[:min(limit, len(s.updates))] {
		out = append(out, u.body)
		if s.repeat {
			out = append(out, u.body)
		}
	}
	return out
}

func (s *Server) getFile(r *request) (any, *failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.params.Get("file_id")
	data, ok := s.files[id]
	switch {
	case !ok:
		return nil, bad("wrong file_id or the file is temporarily unavailable")
	case len(data) > maxDownload:
		return nil, bad("file is too big")
	}
	return map[string]any{"file_id": id, "file_unique_id": id, "file_size": len(data), "file_path": "files/" + id}, nil
}

func (s *Server) download(w http.ResponseWriter, path string) {
	s.mu.Lock()
	data, ok := s.files[strings.TrimPrefix(path, "files/")]
	s.mu.Unlock()
	if !ok {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	_, _ = w.Write(data)
}

func units(s string) int { return len(utf16.Encode([]rune(s))) }

// text returns the text and the entities of a call, trimmed and checked as the server does.
func (s *Server) text(r *request, field, entities string, limit int) (string, []Entity, *failure) {
	text := r.params.Get(field)
	if units(text) > limit {
		return "", nil, bad(map[string]string{"text": "message is too long", "caption": "message caption is too long"}[field])
	}
	var out []Entity
	if raw := r.params.Get(entities); raw != "" {
		if json.Unmarshal([]byte(raw), &out) != nil {
			return "", nil, bad("can't parse entities JSON object")
		}
	}
	if s.refuse && len(out) > 0 {
		return "", nil, bad("can't parse entities: the test wants it so")
	}
	for _, e := range out {
		if e.Offset < 0 || e.Length <= 0 || e.Offset+e.Length > units(text) {
			return "", nil, bad(fmt.Sprintf("can't parse entities: entity %s is out of the text", e.Type))
		}
		code := e.Type == "code" || e.Type == "pre"
		for _, o := range out {
			if code && o != e && o.Offset < e.Offset+e.Length && e.Offset < o.Offset+o.Length {
				return "", nil, bad("can't parse entities: code holds other entities")
			}
		}
	}
	if len(out) > 100 {
		out = out[:100]
	}
	return strings.TrimRight(text, " \n"), out, nil
}

func sent(chat int64, m *Message) map[string]any {
	return map[string]any{"message_id": m.ID, "date": m.At.Unix(), "chat": map[string]any{"id": chat}, "text": m.Text}
}

func (s *Server) sendMessage(r *request) (any, *failure) {
	text, entities, f := s.text(r, "text", "entities", maxText)
	if f != nil {
		return nil, f
	}
	if strings.TrimSpace(text) == "" {
		return nil, bad("message text is empty")
	}
	return sent(r.chat, s.add(r.chat, &Message{FromBot: true, Text: text, Entities: entities})), nil
}

func (s *Server) sendFile(r *request, photo bool) (any, *failure) {
	caption, entities, f := s.text(r, "caption", "caption_entities", maxCaption)
	switch {
	case f != nil:
		return nil, f
	case len(r.file) == 0:
		return nil, bad("there is no file in the request")
	case photo && len(r.file) > maxPhoto:
		return nil, bad("file of size " + strconv.Itoa(len(r.file)) + " bytes is too big for a photo; the maximum size is 10485760 bytes")
	case len(r.file) > maxDocument:
		return nil, &failure{http.StatusRequestEntityTooLarge, "Request Entity Too Large", 0}
	case photo && !strings.HasPrefix(http.DetectContentType(r.file), "image/"):
		return nil, bad("IMAGE_PROCESS_FAILED")
	}
	return sent(r.chat, s.add(r.chat, &Message{FromBot: true, Text: caption, Entities: entities, File: r.file, Photo: photo})), nil
}

// find returns the message of a call that edits one.
func (s *Server) find(r *request) (*Message, *failure) {
	for _, m := range s.chats[r.chat] {
		if m.ID != r.number("message_id") {
			continue
		}
		if !m.FromBot {
			return nil, bad("message can't be edited")
		}
		return m, nil
	}
	return nil, bad("message to edit not found")
}

const notModified = "message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message"

func (s *Server) editText(r *request) (any, *failure) {
	m, f := s.find(r)
	if f != nil {
		return nil, f
	}
	text, entities, f := s.text(r, "text", "entities", maxText)
	switch {
	case f != nil:
		return nil, f
	case strings.TrimSpace(text) == "":
		return nil, bad("message text is empty")
	case text == m.Text && slices.Equal(entities, m.Entities):
		return nil, bad(notModified)
	}
	m.Text, m.Entities = text, entities
	m.Edits++
	return sent(r.chat, m), nil
}

func (s *Server) editMarkup(r *request) (any, *failure) {
	if _, f := s.find(r); f != nil {
		return nil, f
	}
	return nil, bad(notModified) // no message here has a markup
}

func (s *Server) remove(r *request) (any, *failure) {
	all := s.chats[r.chat]
	i := slices.IndexFunc(all, func(m *Message) bool { return m.ID == r.number("message_id") })
	if i < 0 {
		return nil, bad("message to delete not found")
	}
	s.deleted[r.chat] = append(s.deleted[r.chat], *all[i])
	s.chats[r.chat] = slices.Delete(all, i, i+1)
	return true, nil
}

// pacer is what a chat may take.
type pacer struct {
	times   []time.Time // of the last minute
	blocked time.Time
}

// pace refuses what comes too fast: in a chat more than one message or edit a second (the
// real server is lenient for short bursts, this one for a tenth of a second), in a group
// more than 20 a minute. The caller holds mu.
func (s *Server) pace(chat int64) *failure {
	p := s.rates[chat]
	if p == nil {
		p = &pacer{}
		s.rates[chat] = p
	}
	now := time.Now()
	refuse := func(wait time.Duration) *failure {
		seconds := max(1, int((wait+time.Second-1)/time.Second))
		p.blocked = now.Add(time.Duration(seconds) * time.Second)
		return &failure{http.StatusTooManyRequests, fmt.Sprintf("Too Many Requests: retry after %d", seconds), seconds}
	}
	if now.Before(p.blocked) {
		return refuse(p.blocked.Sub(now))
	}
	p.times = slices.DeleteFunc(p.times, func(t time.Time) bool { return now.Sub(t) > time.Minute })
	if n := len(p.times); n > 0 && now.Sub(p.times[n-1]) < 900*time.Millisecond {
		return refuse(time.Second)
	}
	if chat < 0 && len(p.times) >= 20 {
		return refuse(time.Minute - now.Sub(p.times[0]))
	}
	p.times = append(p.times, now)
	return nil
}
