package telegram

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	tg "github.com/OvyFlash/telegram-bot-api"
	"golang.org/x/time/rate"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
)

const (
	callTimeout = time.Minute      // how long a call may take; a file's may be large
	pollTime    = 50 * time.Second // how long the server holds a poll
	maxAnswer   = 32 << 20         // bytes of an answer of the API
	maxPicture  = 10 << 20         // bytes of a picture, both ways: Telegram's limit for photos, and AegisVM's for blobs
	perSecond   = 25               // calls to the API; its limit is about 30
)

// doer is an http.Client.
type doer interface {
	Do(req *http.Request) (*http.Response, error)
}

// bot is the Bot API.
type bot struct {
	api   *tg.BotAPI
	files string // where files are
	http  doer
	calls *rate.Limiter
}

func newBot(token secret.Value, base string, client doer) *bot {
	api := &tg.BotAPI{Token: token.Reveal(), Client: quiet{client}}
	api.SetAPIEndpoint(base + "/bot%s/%s")
	return &bot{
		api: api, http: quiet{client}, files: base + "/file/bot" + token.Reveal() + "/",
		calls: rate.NewLimiter(perSecond, perSecond),
	}
}

// quiet is a doer whose errors do not name the URL, which has the token in it, and whose
// answers are bounded.
type quiet struct{ doer }

func (q quiet) Do(req *http.Request) (*http.Response, error) {
	resp, err := q.doer.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if resp != nil {
		resp.Body = bounded{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

type bounded struct {
	io.Reader
	io.Closer
}

// call makes a call, whose result is decoded into out unless that is nil.
func (b *bot) call(ctx context.Context, c tg.Chattable, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := b.calls.Wait(ctx); err != nil {
		return err
	}
	resp, err := b.api.RequestWithContext(ctx, c)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(resp.Result, out)
}

// me returns the bot's own id.
func (b *bot) me(ctx context.Context) (tg.User, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return b.api.GetMeWithContext(ctx)
}

// poll returns the updates from offset on, and waits for one. It acknowledges all before.
func (b *bot) poll(ctx context.Context, offset int, wait time.Duration) ([]update, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	resp, err := b.api.RequestWithContext(ctx, tg.UpdateConfig{
		Offset: offset, Timeout: int(wait.Seconds()), AllowedUpdates: []string{"message"},
	})
	if err != nil {
		return nil, err
	}
	return decodeUpdates(resp.Result)
}

// send sends a message, and returns its id.
func (b *bot) send(ctx context.Context, c tg.Chattable) (int, error) {
	var m struct {
		ID int `json:"message_id"`
	}
	err := b.call(ctx, c, &m)
	return m.ID, err
}

// fetch returns a file that somebody sent.
func (b *bot) fetch(ctx context.Context, fileID string) ([]byte, error) {
	var f tg.File
	if err := b.call(ctx, tg.FileConfig{FileID: fileID}, &f); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	u, err := url.Parse(b.files + f.FilePath)
	if err != nil {
		return nil, errors.New("the path of a file is none")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get a file: %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxPicture+1))
	if err == nil && len(data) > maxPicture {
		err = fault.New(fault.TooLarge, "a picture of more than %d MB", maxPicture>>20)
	}
	return data, err
}

// answered returns what the API said, if err is that.
func answered(err error) (*tg.Error, bool) { return errors.AsType[*tg.Error](err) }

// waitOf returns how long the API says to wait, if it does.
func waitOf(err error) (time.Duration, bool) {
	e, ok := answered(err)
	if !ok || e.Code != http.StatusTooManyRequests {
		return 0, false
	}
	return time.Duration(max(1, e.RetryAfter)) * time.Second, true
}

// says tells whether err is a 400 of the API that has one of these texts in it.
func says(err error, texts ...string) bool {
	e, ok := answered(err)
	if !ok || e.Code != http.StatusBadRequest {
		return false
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(e.Message), text) {
			return true
		}
	}
	return false
}

// What the API says of edits and entities.
func isSame(err error) bool { return says(err, "message is not modified") }

func isGone(err error) bool {
	return says(err, "message to edit not found", "message can't be edited", "message_id_invalid")
}
func isBadText(err error) bool { return says(err, "entit", "message is too long") }

// isPassing tells whether the same call may succeed later. A token that is refused may be
// good again, or be replaced.
func isPassing(err error) bool {
	e, ok := answered(err)
	return !ok || e.Code >= http.StatusInternalServerError || e.Code == http.StatusTooManyRequests || isBadToken(err)
}

func isBadToken(err error) bool {
	e, ok := answered(err)
	return ok && (e.Code == http.StatusUnauthorized || e.Code == http.StatusNotFound)
}

// explain returns what an error of the API is to a person.
func explain(err error) error {
	e, ok := answered(err)
	if !ok {
		return fault.Wrap(fault.Unavailable, err, "Telegram is out of reach").
			WithHint("is this host online? The gateway goes on trying")
	}
	switch {
	case isBadToken(err):
		return fault.New(fault.Denied, "Telegram refuses the bot's token: %d %s", e.Code, e.Message).
			WithHint("get it from @BotFather, then: aegis secret set TELEGRAM_BOT_TOKEN")
	case e.Code == http.StatusConflict:
		return fault.New(fault.Conflict, "Telegram: %s", e.Message).
			WithHint("another program uses the bot's token: end it, or give each its own bot. A webhook that was set once: deleteWebhook")
	}
	return fault.New(fault.Unavailable, "Telegram: %d %s", e.Code, e.Message)
}
