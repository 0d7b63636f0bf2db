package telegram

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	tg "github.com/OvyFlash/telegram-bot-api"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	gather     = 300 * time.Millisecond  // how long deltas are gathered before they are shown
	typingTime = 4500 * time.Millisecond // "typing" is shown for five seconds
	quietTime  = 10 * time.Minute        // how long an agent that says nothing is believed to work
	maxParts   = 20                      // messages of one answer
)

// chat shows one session. It is of one goroutine.
type chat struct {
	*channel

	s    *gateway.Session
	room *room
	kept note

	text   strings.Builder // of the answer under way, kept.Draft, as far as it is known
	frozen bool            // the text has a gap: the draft stays as it is until it is done
	due    *time.Timer     // when the text is to be shown; nil while what is shown is the text
	typing *time.Timer     // when to say again that the agent works; nil while it does not
	until  time.Time       // when it is not believed any more
}

// note is what a chat keeps in the session's file.
type note struct {
	Draft   *draft `json:"draft,omitempty"`   // the answer under way
	Showing *draft `json:"showing,omitempty"` // an answer that is done, and not whole in the chat yet
	High    int    `json:"high,omitempty"`    // highest id of a message in the chat
}

// Serve implements gateway.Channel.
func (ch *channel) Serve(ctx context.Context, s *gateway.Session) {
	id, _ := chatOf(s.ID) // Knows has seen to it
	c := &chat{channel: ch, s: s, room: ch.rooms.of(id)}
	if _, err := s.Note(&c.kept); err != nil {
		ch.log.ErrorContext(ctx, "a note is of no use", logattr.Chat(id), logattr.Err(err))
	}
	c.room.note(c.kept.High)
	for _, d := range []*draft{c.kept.Draft, c.kept.Showing} {
		d.known(c.room)
	}
	defer c.stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Ready():
			events, gap := s.Take()
			if gap && c.kept.Draft != nil {
				c.freeze()
			}
			for _, e := range events {
				c.handle(ctx, e)
			}
		case <-after(c.due):
			c.preview(ctx)
		case <-after(c.typing):
			c.work(ctx)
		}
	}
}

// after returns the channel of a timer that may be nil.
func after(t *time.Timer) <-chan time.Time {
	if t == nil {
		return nil
	}
	return t.C
}

func (c *chat) stop() {
	c.noDue()
	c.idle()
}

func (c *chat) noDue() {
	if c.due != nil {
		c.due.Stop()
		c.due = nil
	}
}

func (c *chat) freeze() {
	c.frozen = true
	c.noDue()
}

func (c *chat) handle(ctx context.Context, e gateway.Event) {
	if ctx.Err() != nil {
		return
	}
	switch e.Type { //nolint:exhaustive // no others come
	case api.FramePresence:
		if e.State == "idle" {
			c.idle()
		} else {
			c.busy(ctx)
		}
	case api.FrameDelta:
		c.busy(ctx)
		c.add(e.Delta)
	case api.FrameDone:
		c.answer(ctx, e)
	default:
		if n, ok := e.Local.(notice); ok && (!n.idle || c.typing == nil) {
			c.say(ctx, n)
		}
	}
}

// busy says in the chat that the agent works, from now on.
func (c *chat) busy(ctx context.Context) {
	c.until = time.Now().Add(quietTime)
	if c.typing == nil {
		c.work(ctx)
	}
}

// work says that the agent works, and when to say so again.
func (c *chat) work(ctx context.Context) {
	if c.typing = nil; time.Now().After(c.until) {
		return
	}
	// It is decoration: that it fails is no matter, and nothing waits for it for long.
	ctx, cancel := context.WithTimeout(ctx, typingTime)
	defer cancel()
	_ = c.bot.call(ctx, tg.NewChatAction(c.room.chat, tg.ChatTyping), nil)
	c.typing = time.NewTimer(typingTime)
}

func (c *chat) idle() {
	if c.typing != nil {
		c.typing.Stop()
		c.typing = nil
	}
}

// add adds to the answer under way.
func (c *chat) add(d api.Delta) {
	if c.kept.Draft == nil || c.kept.Draft.Reply != d.ReplyTo {
		c.kept.Draft = &draft{Reply: d.ReplyTo}
		c.frozen = false
		c.text.Reset()
	}
	if c.frozen || c.text.Len() > maxParts*maxMessage {
		return
	}
	c.text.WriteString(d.Text)
	c.soon()
}

// soon shows the text when enough of it has been gathered and Telegram allows it.
func (c *chat) soon() {
	if c.due == nil {
		c.due = time.NewTimer(max(gather, time.Until(c.room.free())))
	}
}

// preview shows the answer under way.
func (c *chat) preview(ctx context.Context) {
	c.due = nil
	d := c.kept.Draft
	parts := split(render(c.text.String()), maxMessage)
	if d == nil || len(parts) == 0 {
		return
	}
	err := c.show(ctx, d, parts[:min(len(parts), maxParts)], false)
	switch {
	case err == nil || ctx.Err() != nil:
	case isPassing(err):
		c.soon()
	default: // the whole answer finds another way, or says why not
		c.log.DebugContext(ctx, "a preview is refused", logattr.Chat(c.room.chat), logattr.Err(err))
		c.freeze()
	}
}

// answer brings an answer into the chat, whole.
func (c *chat) answer(ctx context.Context, e gateway.Event) {
	d := &draft{}
	switch {
	case c.kept.Showing != nil && c.kept.Showing.Seq == e.Seq:
		d = c.kept.Showing
	case c.kept.Draft != nil && c.kept.Draft.Reply == e.Answer.ReplyTo:
		d, c.kept.Draft = c.kept.Draft, nil
		c.noDue()
		c.text.Reset()
		c.frozen = false
	}
	d.Seq = e.Seq
	c.kept.Showing = d
	c.idle()
	err := c.whole(ctx, d, e.Answer)
	if ctx.Err() != nil {
		return // it comes again
	}
	if err != nil {
		c.log.ErrorContext(ctx, "an answer cannot be shown", logattr.Chat(c.room.chat), logattr.Err(err), logattr.Hint(hintOf(err)))
	}
	c.kept.Showing = nil
	if err := c.s.Shown(e, c.keepable()); err != nil {
		c.log.ErrorContext(ctx, "what was shown cannot be kept", logattr.Chat(c.room.chat), logattr.Err(err))
	}
}

// whole shows an answer's text and pictures.
func (c *chat) whole(ctx context.Context, d *draft, a api.AssistantMessage) error {
	text := a.Text
	if strings.TrimSpace(text) == "" && a.Error != "" {
		text = "⚠️ " + a.Error
	}
	err := c.show(ctx, d, limited(split(render(text), maxMessage)), true)
	if isBadText(err) {
		c.log.WarnContext(ctx, "an answer's formatting is refused; it is sent without", logattr.Chat(c.room.chat), logattr.Err(err))
		err = c.show(ctx, d, limited(split(plain(text), maxMessage)), true)
	}
	if err != nil {
		return err
	}
	for d.Images < len(a.Images) {
		if err := c.picture(ctx, d, a.Images[d.Images]); err != nil {
			if ctx.Err() != nil || isRefused(err) {
				return err
			}
			c.say(ctx, notice{text: "⚠️ A picture of this answer cannot be shown: " + err.Error()})
		}
		d.Images++
		c.keep(ctx)
	}
	return c.settle(ctx, d)
}

// limited returns the messages of an answer that are sent, with a word on those that are not.
func limited(parts []part) []part {
	if len(parts) <= maxParts {
		return parts
	}
	return append(parts[:maxParts-1:maxParts-1], part{text: "[…] The answer is too long for a chat. Ask the agent to write it to a file."})
}

// say writes something of the gateway's own.
func (c *chat) say(ctx context.Context, n notice) {
	doc := plain(n.text)
	if n.code {
		doc.spans = []span{{kind: "pre", end: len(doc.text)}}
	}
	for _, p := range split(doc, maxMessage) {
		err := c.write(ctx, true, func() error {
			id, err := c.bot.send(ctx, p.message(c.room.chat))
			if err == nil {
				c.room.noteOwn(id)
			}
			return err
		})
		if err != nil && ctx.Err() == nil {
			c.log.WarnContext(ctx, "a notice cannot be shown", logattr.Chat(c.room.chat), logattr.Err(err))
			return
		}
	}
}

// keepable returns the note as it is now.
func (c *chat) keepable() note {
	c.kept.High = c.room.highest()
	return c.kept
}

func (c *chat) keep(ctx context.Context) {
	if err := c.s.Keep(c.keepable()); err != nil {
		c.log.ErrorContext(ctx, "a note cannot be kept", logattr.Chat(c.room.chat), logattr.Err(err))
	}
}

// isRefused tells whether the chat takes nothing from the bot.
func isRefused(err error) bool {
	e, ok := answered(err)
	return ok && (e.Code == http.StatusForbidden || says(err, "chat not found", "group chat was upgraded"))
}

func hintOf(err error) string {
	if e, ok := answered(err); ok {
		switch {
		case e.MigrateToChatID != 0:
			return "the group has another id now; allow that one in gateway.json"
		case e.Code == http.StatusForbidden:
			return "the bot was blocked there, or put out of the group"
		}
	}
	return fault.HintOf(err)
}

var errNoPicture = errors.New("it is too large, or no picture")
