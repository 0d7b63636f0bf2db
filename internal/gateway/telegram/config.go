package telegram

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// Kind is this kind of channels: the section "telegram" of gateway.json.
var Kind = gateway.Kind{Name: "telegram", Open: open}

// section is what the section says.
type section struct {
	BotTokenSecret string   `json:"bot_token_secret"` // the name of a stored secret
	BotTokenEnv    string   `json:"bot_token_env"`    // the name of a variable
	BotToken       string   `json:"bot_token"`
	AllowedChats   []chatID `json:"allowed_chats"` // ids, or "*" for everybody; none is nobody
	APIBase        string   `json:"api_base"`      // of another server of the Bot API
	AllowExec      bool     `json:"allow_exec"`    // /exec CMD runs in the VM
}

// everybody stands for all chats.
const everybody chatID = 0

// chatID is the id of a chat, as a number or as a text.
type chatID int64

// UnmarshalJSON implements json.Unmarshaler.
func (c *chatID) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "*" && len(b) == len(`"*"`) {
		*c = everybody
		return nil
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id == 0 {
		return fault.New(fault.Invalid, "allowed_chats has %.40s, which is no id of a chat", b).
			WithHint(`ids are numbers; the gateway's log names them when somebody writes. Everybody is "*"`)
	}
	*c = chatID(id)
	return nil
}

// channel is the gateway.Channel.
type channel struct {
	log     *slog.Logger
	allowed map[chatID]bool
	exec    bool
	bot     *bot
	rooms   *rooms
}

func open(log *slog.Logger, raw json.RawMessage, keys gateway.Keys) (gateway.Channel, error) {
	var s section
	if err := gateway.Decode(raw, &s); err != nil {
		return nil, err
	}
	base := strings.TrimRight(s.APIBase, "/")
	if base == "" {
		base = "https://api.telegram.org"
	}
	if u, err := url.Parse(base); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Contains(base, "%") {
		return nil, fault.New(fault.Invalid, "api_base is %.80q, and no address of a server", s.APIBase).
			WithHint("such as https://api.telegram.org, which is the default")
	}
	token, err := keys.Token("bot_token", s.BotTokenSecret, s.BotTokenEnv, s.BotToken)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(token.Reveal(), " \t\r\n/%?#") {
		return nil, fault.New(fault.Invalid, "the bot's token has characters that tokens do not have").
			WithHint("copy it again from @BotFather: aegis secret set TELEGRAM_BOT_TOKEN")
	}
	ch := newChannel(log, token, base, &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}) //nolint:forcetypeassert // it is one
	for _, id := range s.AllowedChats {
		ch.allowed[id] = true
	}
	ch.exec = s.AllowExec
	return ch, nil
}

func newChannel(log *slog.Logger, token secret.Value, base string, client doer) *channel {
	return &channel{
		log: log, allowed: map[chatID]bool{},
		bot: newBot(token, base, client), rooms: newRooms(),
	}
}

func (ch *channel) allows(chat int64) bool {
	return ch.allowed[everybody] || ch.allowed[chatID(chat)]
}

// Knows implements gateway.Channel.
func (ch *channel) Knows(session string) bool {
	chat, ok := chatOf(session)
	return ok && ch.allows(chat)
}

// chatOf returns the chat that a session is held in. A session is named by its chat's id;
// one that /new began has the id of that update behind it.
func chatOf(session string) (int64, bool) {
	id, _, _ := strings.Cut(session, "_")
	chat, err := strconv.ParseInt(id, 10, 64)
	return chat, err == nil && chat != 0 && strconv.FormatInt(chat, 10) == id && len(session) <= 64
}

// sayAgain is how long nothing is logged of a chat again that is not allowed.
const sayAgain = time.Hour
