package telegram

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	tg "github.com/OvyFlash/telegram-bot-api"

	"github.com/xfeldman/aegisvm/api"
)

// update is one thing that happened, as far as this channel reads it.
type update struct {
	id      int
	message *tg.Message // nil where it is something else, or cannot be read
}

// decodeUpdates decodes the result of a poll. An update that cannot be read is one
// without a message: it must not keep those behind it.
func decodeUpdates(raw json.RawMessage) ([]update, error) {
	var each []json.RawMessage
	if err := json.Unmarshal(raw, &each); err != nil {
		return nil, fmt.Errorf("decode updates: %w", err)
	}
	var out []update
	for _, b := range each {
		var head struct {
			ID *int `json:"update_id"`
		}
		if json.Unmarshal(b, &head) != nil || head.ID == nil {
			continue // there is no way to acknowledge it
		}
		u := update{id: *head.ID}
		var full tg.Update
		if json.Unmarshal(b, &full) == nil && full.Message != nil && full.Message.Chat.ID != 0 {
			u.message = full.Message
		}
		out = append(out, u)
	}
	return out, nil
}

// command splits a message that is a command: "/new", "/exec@my_bot ls". A command for
// another bot is not this one's.
func command(text, me string) (name, args string, ok bool) {
	if !strings.HasPrefix(text, "/") {
		return "", "", false
	}
	head, args, _ := strings.Cut(text, " ")
	if i := strings.IndexByte(head, '\n'); i >= 0 {
		args = head[i+1:] + " " + args
		head = head[:i]
	}
	name, bot, addressed := strings.Cut(head[1:], "@")
	if addressed && !strings.EqualFold(bot, me) {
		return "", "", false
	}
	return strings.ToLower(name), strings.TrimSpace(args), true
}

// writer returns who wrote a message.
func writer(m *tg.Message) *api.User {
	if m.From == nil {
		return nil
	}
	return &api.User{
		ID:       strconv.FormatInt(m.From.ID, 10),
		Username: m.From.UserName,
		Name:     strings.TrimSpace(m.From.FirstName + " " + m.From.LastName),
	}
}

// pictureOf returns the file of the picture in a message, "" for none.
func pictureOf(m *tg.Message) (fileID string, size int64) {
	for _, p := range m.Photo { // in several sizes: the largest that fits
		if s := int64(p.FileSize); s >= size && s <= maxPicture {
			fileID, size = p.FileID, s
		}
	}
	if d := m.Document; d != nil {
		switch d.MimeType {
		case "image/png", "image/jpeg", "image/gif", "image/webp":
			return d.FileID, d.FileSize
		}
	}
	return fileID, size
}

// textOf returns what a message says, its caption included.
func textOf(m *tg.Message) string {
	if m.Text != "" {
		return m.Text
	}
	return m.Caption
}
