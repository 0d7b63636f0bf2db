package telegramtest

import (
	"fmt"
	"strconv"
	"time"
)

// update is one that waits to be polled.
type update struct {
	id   int
	body map[string]any
}

// file is a file in a message of a person's.
type file struct {
	data  []byte
	mime  string // "" is a photo
	group string
}

// Write writes a message in a chat, and returns its update's id.
func (s *Server) Write(chat int64, text string) int { return s.write(chat, text, nil) }

// WritePhoto sends a photo with a caption. Photos of one group are an album.
func (s *Server) WritePhoto(chat int64, data []byte, caption, group string) int {
	return s.write(chat, caption, &file{data, "", group})
}

// WriteDocument sends a file.
func (s *Server) WriteDocument(chat int64, data []byte, mime, caption string) int {
	return s.write(chat, caption, &file{data, mime, ""})
}

// Put puts an update of any form before the bot, and returns its id.
func (s *Server) Put(body map[string]any) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(body)
}

func (s *Server) put(body map[string]any) int {
	s.updateID++
	body["update_id"] = s.updateID
	s.updates = append(s.updates, update{s.updateID, body})
	s.tell()
	return s.updateID
}

func (s *Server) write(chat int64, text string, f *file) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.add(chat, &Message{Text: text})
	kind := "private"
	if chat < 0 {
		kind = "group"
	}
	body := map[string]any{
		"message_id": m.ID, "date": time.Now().Unix(),
		"chat": map[string]any{"id": chat, "type": kind},
		"from": map[string]any{"id": 7, "first_name": "Test", "last_name": "Person", "username": "tester"},
	}
	switch {
	case f == nil:
		body["text"] = text
	case f.mime == "":
		small, large := s.keep(f.data[:min(len(f.data), 8)]), s.keep(f.data)
		body["caption"] = text
		body["photo"] = []map[string]any{
			{"file_id": small, "file_unique_id": small, "width": 1, "height": 1, "file_size": min(len(f.data), 8)},
			{"file_id": large, "file_unique_id": large, "width": 9, "height": 9, "file_size": len(f.data)},
		}
	default:
		id := s.keep(f.data)
		body["caption"] = text
		body["document"] = map[string]any{"file_id": id, "file_unique_id": id, "mime_type": f.mime, "file_size": len(f.data)}
	}
	if f != nil && f.group != "" {
		body["media_group_id"] = f.group
	}
	return s.put(map[string]any{"message": body})
}

func (s *Server) keep(data []byte) string {
	id := fmt.Sprintf("file%d", len(s.files))
	s.files[id] = data
	return id
}

// add gives a message an id and puts it into its chat. Private chats have one sequence of
// ids together.
func (s *Server) add(chat int64, m *Message) *Message {
	seq := min(chat, 0)
	s.nextID[seq]++
	m.ID, m.At = s.nextID[seq], time.Now()
	s.chats[chat] = append(s.chats[chat], m)
	return m
}

// ChatName is the name of the session that a chat begins with.
func ChatName(chat int64) string { return strconv.FormatInt(chat, 10) }
