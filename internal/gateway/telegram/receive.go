package telegram

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	tg "github.com/OvyFlash/telegram-bot-api"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// receiver passes updates on. It is of one goroutine.
type receiver struct {
	*channel

	line   *gateway.Line
	me     tg.User
	names  sessions
	recent ring[int]           // updates that were taken: a server may repeat itself
	told   map[int64]time.Time // when a chat that is not allowed was logged
	execs  sync.WaitGroup
	busy   map[int64]chan struct{} // chats whose /exec runs; closed when it has ended
}

// Receive implements gateway.Channel.
func (ch *channel) Receive(ctx context.Context, line *gateway.Line) error {
	me, err := ch.bot.me(ctx)
	if err != nil {
		return pace(ctx, err, 0)
	}
	names, err := loadSessions(line.Dir())
	if err != nil {
		return err
	}
	r := &receiver{channel: ch, line: line, me: me, names: names, told: map[int64]time.Time{}, busy: map[int64]chan struct{}{}}
	defer r.execs.Wait()
	for offset, pause := 0, time.Second; ctx.Err() == nil; {
		next, err := r.round(ctx, offset)
		if offset = max(offset, next); err == nil {
			pause = time.Second
			continue
		}
		if ctx.Err() == nil {
			why := explain(err)
			r.log.WarnContext(ctx, "messages cannot be received", logattr.Err(why), logattr.Hint(fault.HintOf(why)))
		}
		_ = pace(ctx, err, pause) // that is logged
		pause = min(2*pause, maxPollPause)
	}
	return ctx.Err()
}

// maxPollPause is the longest pause between polls that fail.
const maxPollPause = 30 * time.Second

// round polls once, takes what there is, and returns the offset behind what it took.
func (r *receiver) round(ctx context.Context, offset int) (int, error) {
	updates, err := r.bot.poll(ctx, offset, pollTime)
	if err == nil {
		updates, err = r.wholeAlbums(ctx, offset, updates)
	}
	if err != nil {
		return offset, err
	}
	for _, us := range albums(updates) {
		if err := r.take(ctx, us); err != nil {
			return offset, err
		}
		offset = us[len(us)-1].id + 1
	}
	return offset, nil
}

// pace waits for pause, or for as long as Telegram wants, and returns what err is to a
// person.
func pace(ctx context.Context, err error, pause time.Duration) error {
	if wait, ok := waitOf(err); ok {
		pause = wait
	}
	if isBadToken(err) {
		pause = time.Minute // until somebody changes it
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return explain(err)
}

// albumTime is how long the rest of an album, or of a long text, has to come: these are
// several messages to Telegram, and to the agent each would end the work on the one before.
const albumTime = 700 * time.Millisecond

// wholeAlbums polls again where the last update may be the beginning of something.
func (r *receiver) wholeAlbums(ctx context.Context, offset int, updates []update) ([]update, error) {
	if n := len(updates); n == 0 || groupOf(updates[n-1]) == "" && !isCut(updates[n-1]) {
		return updates, nil
	}
	timer := time.NewTimer(albumTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return r.bot.poll(ctx, max(offset, updates[0].id), 0)
}

func groupOf(u update) string {
	if u.message == nil {
		return ""
	}
	return u.message.MediaGroupID
}

// cutLength is the length from which on a text may be the beginning of one that was too
// long: apps cut those at a space.
const cutLength = 4000

func isCut(u update) bool {
	return u.message != nil && units(u.message.Text) >= cutLength
}

// goesOn tells whether next is the rest of what u began.
func goesOn(u, next update) bool {
	if u.message == nil || next.message == nil || u.message.Chat.ID != next.message.Chat.ID {
		return false
	}
	if g := groupOf(u); g != "" {
		return g == groupOf(next)
	}
	from, to := u.message.From, next.message.From
	return isCut(u) && next.message.Text != "" && !strings.HasPrefix(next.message.Text, "/") && from != nil && to != nil && from.ID == to.ID
}

// albums puts updates together that are one message: an album, a long text. One that is
// there twice in a row is there once.
func albums(updates []update) [][]update {
	var out [][]update
	for i, u := range updates {
		if i > 0 && u.id == updates[i-1].id {
			continue
		}
		if i > 0 && goesOn(updates[i-1], u) {
			last := len(out) - 1
			out[last] = append(out[last], u)
			continue
		}
		out = append(out, []update{u})
	}
	return out
}

// take passes on the message that updates are. An error is that ctx has ended.
func (r *receiver) take(ctx context.Context, us []update) error {
	m := us[0].message
	if m == nil || r.recent.has(us[0].id) {
		return ctx.Err()
	}
	chat := m.Chat.ID
	if !r.allows(chat) {
		r.refuse(ctx, m)
		return ctx.Err()
	}
	for _, u := range us {
		if u.message != nil {
			r.rooms.of(chat).note(u.message.MessageID)
		}
	}
	var err error
	if name, args, ok := command(m.Text, r.me.UserName); ok && r.isOwn(name) {
		err = r.command(ctx, us[0], name, args)
	} else {
		err = r.tell(ctx, us)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.log.ErrorContext(ctx, "a message cannot be delivered", logattr.Chat(chat), logattr.Err(err), logattr.Hint(fault.HintOf(err)))
		r.say(chat, "⚠️ This message did not reach the agent: "+err.Error())
	}
	for _, u := range us {
		r.recent.add(u.id)
	}
	return nil
}

// refuse logs, now and then, that a chat is not allowed. It gets no answer.
func (r *receiver) refuse(ctx context.Context, m *tg.Message) {
	chat, now := m.Chat.ID, time.Now()
	if at, ok := r.told[chat]; ok && now.Sub(at) < sayAgain {
		return
	}
	if len(r.told) > 1000 { // somebody makes chats to fill the log, or memory
		for id, at := range r.told {
			if now.Sub(at) >= sayAgain {
				delete(r.told, id)
			}
		}
		if len(r.told) > 1000 {
			return
		}
	}
	r.told[chat] = now
	who := m.Chat.Title
	if u := writer(m); u != nil {
		who = strings.TrimSpace(who + " " + u.Name + " @" + u.Username)
	}
	r.log.WarnContext(ctx, "a chat is not allowed", logattr.Chat(chat), logattr.Why(fmt.Sprintf("written by %.80q", who)),
		logattr.Hint(fmt.Sprintf(`to allow it, add its id in gateway.json: "allowed_chats": [%d]`, chat)))
}

// tell gives the agent a message.
func (r *receiver) tell(ctx context.Context, us []update) error {
	first, last := us[0], us[len(us)-1]
	chat := first.message.Chat.ID
	out := api.UserMessage{User: writer(first.message)}
	for _, u := range us {
		if u.message == nil {
			continue
		}
		if text := textOf(u.message); text != "" {
			out.Text = strings.TrimPrefix(out.Text+"\n"+text, "\n")
		}
		picture, err := r.picture(ctx, u.message)
		if err != nil {
			return err
		}
		if picture != nil {
			out.Images = append(out.Images, *picture)
		}
	}
	if out.Text == "" && len(out.Images) == 0 {
		r.say(chat, "I can read text and pictures (PNG, JPEG, GIF, WebP), nothing else.")
		return nil
	}
	id := fmt.Sprintf("telegram-%d-%d-%d", r.me.ID, chat, first.id)
	if last.id != first.id {
		id += "-" + strconv.Itoa(last.id)
	}
	return r.line.Tell(ctx, r.names.of(chat), id, out)
}

// picture takes over the picture in a message, if there is one. It tries several times.
func (r *receiver) picture(ctx context.Context, m *tg.Message) (*api.Picture, error) {
	fileID, size := pictureOf(m)
	if fileID == "" {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	if size > maxPicture {
		return nil, fault.New(fault.TooLarge, "the picture has %d MB, and may have %d", size>>20, maxPicture>>20)
	}
	var err error
	for wait := time.Second; wait <= 4*time.Second; wait *= 2 {
		var b []byte
		if b, err = r.bot.fetch(ctx, fileID); err == nil {
			var p api.Picture
			p, err = r.line.PutPicture(ctx, b)
			if err == nil {
				return &p, nil
			}
		}
		kind := fault.KindOf(err)
		if kind == fault.TooLarge || kind == fault.Invalid || kind == fault.Denied || !isPassing(err) {
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("take over a picture: %w", err)
}

// say writes something of the gateway's own in a chat.
func (r *receiver) say(chat int64, text string) {
	r.line.Post(r.names.of(chat), notice{text: text})
}
