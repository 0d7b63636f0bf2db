package telegram

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	tg "github.com/OvyFlash/telegram-bot-api"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// draft is an answer in a chat: the messages that show it.
type draft struct {
	Reply    string    `json:"reply,omitempty"` // id of the message that it answers
	Seq      int64     `json:"seq,omitempty"`   // of the answer, when it is done
	Messages []message `json:"messages,omitempty"`
	Images   int       `json:"images,omitempty"` // how many of the pictures have been sent
	// Sending is set while a message is being sent, to the highest id that the chat had
	// before. Where it is set and nobody sends, there may be a message that nobody knows.
	Sending *int `json:"sending,omitempty"`

	// lost says that Sending is another process's, or of a call without an answer.
	lost bool
}

// message is one message of an answer.
type message struct {
	ID  int    `json:"id"`
	Sum string `json:"sum"` // of what it says, as far as that is known
}

// known tells the room what was found in a note.
func (d *draft) known(r *room) {
	if d == nil {
		return
	}
	for _, m := range d.Messages {
		r.noteOwn(m.ID)
	}
	d.lost = d.Sending != nil
}

func (p part) sum() string {
	b, _ := json.Marshal(p.entities) // of strings and numbers
	sum := sha256.Sum256(append(b, p.text...))
	return hex.EncodeToString(sum[:8])
}

func (p part) message(chat int64) tg.MessageConfig {
	m := tg.NewMessage(chat, p.text)
	m.Entities = p.entities
	m.LinkPreviewOptions.IsDisabled = true
	return m
}

// show makes the messages of a draft what parts say: it edits those that differ, sends
// those that are missing, and deletes those that are too many. It can be called again
// wherever it was broken off. With final it waits and tries until it is done, or refused.
func (c *chat) show(ctx context.Context, d *draft, parts []part, final bool) error {
	for i, p := range parts {
		if i < len(d.Messages) {
			if d.Messages[i].Sum == p.sum() {
				continue
			}
			err := c.edit(ctx, d, i, p, final)
			if !isGone(err) {
				if err != nil {
					return err
				}
				continue
			}
		}
		id, err := c.send(ctx, d, final, func() tg.Chattable { return p.message(c.room.chat) })
		if err != nil {
			return err
		}
		if i < len(d.Messages) { // it takes the place of one that somebody has deleted
			d.Messages[i] = message{id, p.sum()}
		} else {
			d.Messages = append(d.Messages, message{id, p.sum()})
		}
		c.keep(ctx)
	}
	for final && len(d.Messages) > len(parts) {
		last := len(d.Messages) - 1
		if err := c.remove(ctx, d.Messages[last].ID); err != nil {
			return err
		}
		d.Messages = d.Messages[:last]
		c.keep(ctx)
	}
	return nil
}

func (c *chat) edit(ctx context.Context, d *draft, i int, p part, final bool) error {
	e := tg.NewEditMessageText(c.room.chat, d.Messages[i].ID, p.text)
	e.Entities = p.entities
	e.LinkPreviewOptions.IsDisabled = true
	err := c.write(ctx, final, func() error { return c.bot.call(ctx, e, nil) })
	if err == nil || isSame(err) {
		d.Messages[i].Sum = p.sum()
		return nil
	}
	return err
}

// send sends a message of a draft, and returns its id. What is sent is kept before and,
// by the caller, after.
func (c *chat) send(ctx context.Context, d *draft, final bool, what func() tg.Chattable) (id int, err error) {
	err = c.write(ctx, final, func() (err error) {
		if d.Sending == nil {
			high := c.room.highest()
			d.Sending = &high
			c.keep(ctx)
		}
		id, err = c.bot.send(ctx, what())
		if err == nil {
			c.room.noteOwn(id)
			return nil
		}
		if e, ok := answered(err); !ok || e.Code >= http.StatusInternalServerError {
			d.lost = true // it may have been sent all the same
		} else if !d.lost {
			d.Sending = nil
		}
		return err
	})
	if err == nil && !d.lost {
		d.Sending = nil
	}
	return id, err
}

// picture sends a picture of an answer, as a photo if Telegram takes it as one.
func (c *chat) picture(ctx context.Context, d *draft, p api.Picture) error {
	b, err := c.s.Picture(ctx, p)
	if err != nil {
		return err
	}
	if len(b) > maxPicture || len(b) == 0 {
		return errNoPicture
	}
	file := tg.FileBytes{Name: p.Blob, Bytes: b}
	photo := func() tg.Chattable { return tg.NewPhoto(c.room.chat, file) }
	document := func() tg.Chattable { return tg.NewDocument(c.room.chat, file) }
	if p.MediaType == "image/gif" {
		photo = document
	}
	if _, err = c.send(ctx, d, true, photo); says(err, "photo", "image", "dimensions") {
		_, err = c.send(ctx, d, true, document)
	}
	return err
}

// maxLost is how many ids are searched for a message that was lost.
const maxLost = 20

// settle deletes messages that were sent and are not known, if there are any.
func (c *chat) settle(ctx context.Context, d *draft) error {
	if d.Sending == nil || !d.lost {
		return nil
	}
	for id := *d.Sending + 1; *d.Sending > 0 && id <= *d.Sending+maxLost; id++ {
		if c.room.isOwn(id) {
			continue
		}
		own, err := c.isOwnMessage(ctx, id)
		if own {
			c.log.InfoContext(ctx, "a message that was sent twice is deleted", logattr.Chat(c.room.chat))
			err = c.remove(ctx, id)
		}
		if err != nil {
			return err
		}
	}
	d.Sending, d.lost = nil, false
	return nil
}

// isOwnMessage tells whether a message is of the bot's, by an edit that changes nothing.
func (c *chat) isOwnMessage(ctx context.Context, id int) (bool, error) {
	e := tg.EditMessageReplyMarkupConfig{BaseEdit: tg.BaseEdit{BaseChatMessage: tg.BaseChatMessage{
		ChatConfig: tg.ChatConfig{ChatID: c.room.chat}, MessageID: id,
	}}}
	for {
		err := c.bot.call(ctx, e, nil)
		wait, limited := waitOf(err)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case limited:
			c.room.used(wait)
			if err := c.room.pause(ctx); err != nil {
				return false, err
			}
		default:
			return err == nil || isSame(err), nil
		}
	}
}

// remove deletes a message of the bot's. One that is gone, or too old, stays what it is.
func (c *chat) remove(ctx context.Context, id int) error {
	err := c.write(ctx, true, func() error { return c.bot.call(ctx, tg.NewDeleteMessage(c.room.chat, id), nil) })
	if says(err, "message to delete not found", "message can't be deleted") {
		return nil
	}
	return err
}

// write makes a call that writes in the chat, when it is this session's turn and Telegram
// allows it. With final it makes it again for as long as it may succeed.
func (c *chat) write(ctx context.Context, final bool, call func() error) error {
	if err := c.room.enter(ctx); err != nil {
		return err
	}
	defer c.room.leave()
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		if err := c.room.pause(ctx); err != nil {
			return err
		}
		err := call()
		told, limited := waitOf(err)
		switch {
		case err == nil, !isPassing(err):
			c.room.used(0)
			return err
		case limited:
			c.room.used(told)
		default:
			c.room.used(wait)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !final {
			return err
		}
	}
}
