// Package webhook is the gateway's channel to programs: they post messages to an address
// on this host, and the answers are posted to theirs.
//
//	"webhook": {"listen": "127.0.0.1:8765", "token_secret": "HOOK_TOKEN", "post_url": "http://127.0.0.1:9000/answers"}
//
// In: POST /v1/messages, an In; the answer is 202 when it is stored. Out: a POST of an Out to
// post_url for each answer, tried again until it is answered with 2xx. Both carry the token
// as "Authorization: Bearer". It listens on loopback only.
package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// Kind is this kind of channels: the section "webhook" of gateway.json.
var Kind = gateway.Kind{Name: "webhook", Open: open}

// In is a message to the agent.
type In struct {
	Session string    `json:"session"` // of which conversation it is; "" is "default"
	ID      string    `json:"id"`      // posted again with the same, it is the same message; "" is a new one
	Text    string    `json:"text"`
	Images  [][]byte  `json:"images,omitempty"` // in base64
	User    *api.User `json:"user,omitempty"`
	Cancel  bool      `json:"cancel,omitempty"` // instead of a text: end what the agent does
}

// Out is an answer of the agent's.
type Out struct {
	Session string   `json:"session"`
	Seq     int64    `json:"seq"` // the same again is the same answer
	Text    string   `json:"text"`
	Images  [][]byte `json:"images,omitempty"` // in base64
	ReplyTo string   `json:"reply_to,omitempty"`
	Error   string   `json:"error,omitempty"`
}

const (
	maxBody     = 48 << 20         // bytes of a message: a few pictures
	postTimeout = 30 * time.Second // for the receiver to take an answer
	maxPause    = time.Minute      // between two attempts
)

type channel struct {
	log    *slog.Logger
	listen string
	post   string
	token  secret.Value
	client *http.Client
}

func open(log *slog.Logger, raw json.RawMessage, keys gateway.Keys) (gateway.Channel, error) {
	var s struct {
		Listen      string `json:"listen"`
		PostURL     string `json:"post_url"`
		TokenSecret string `json:"token_secret"`
		TokenEnv    string `json:"token_env"`
		Token       string `json:"token"`
	}
	if err := gateway.Decode(raw, &s); err != nil {
		return nil, err
	}
	if at, err := netip.ParseAddrPort(s.Listen); err != nil || !at.Addr().IsLoopback() {
		return nil, fault.New(fault.Invalid, "listen is %.60q, and no loopback address with a port", s.Listen).
			WithHint("such as 127.0.0.1:8765; put a proxy with TLS in front for others")
	}
	if u, err := url.Parse(s.PostURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.Invalid, "post_url is %.80q, and no http address", s.PostURL).
			WithHint("such as http://127.0.0.1:9000/answers")
	}
	token, err := keys.Token("token", s.TokenSecret, s.TokenEnv, s.Token)
	if err != nil {
		return nil, err
	}
	return &channel{log: log, listen: s.Listen, post: s.PostURL, token: token, client: &http.Client{
		Timeout:       postTimeout,
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}}, nil
}

// sessionForm is what the tether takes as the name of a session.
var sessionForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._:@+-]{0,127}$`)

// Knows implements gateway.Channel.
func (*channel) Knows(session string) bool { return sessionForm.MatchString(session) }

// Receive implements gateway.Channel.
func (c *channel) Receive(ctx context.Context, line *gateway.Line) error {
	var conf net.ListenConfig
	l, err := conf.Listen(ctx, "tcp", c.listen)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the webhook cannot listen").WithHint("free the port, or set another in listen")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", func(w http.ResponseWriter, r *http.Request) { c.take(w, r, line) })
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = srv.Serve(l)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		_ = srv.Close() // who is not answered posts again
		<-ended
		return ctx.Err()
	}
}

// take answers a message.
func (c *channel) take(w http.ResponseWriter, r *http.Request, line *gateway.Line) {
	given, want := []byte(r.Header.Get("Authorization")), []byte("Bearer "+c.token.Reveal())
	if subtle.ConstantTimeCompare(given, want) != 1 {
		answer(w, http.StatusUnauthorized, api.Error{Error: "the token is missing or wrong"})
		return
	}
	var in In
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		answer(w, statusOf(fault.Wrap(fault.Invalid, err, "decode")), api.Error{Error: "decode a message: " + err.Error()})
		return
	}
	if in.Session == "" {
		in.Session = "default"
	}
	if !c.Knows(in.Session) || (in.Text == "" && len(in.Images) == 0) != in.Cancel {
		answer(w, http.StatusBadRequest, api.Error{Error: "a message has a session, such as \"ci-7\", and a text, images or cancel"})
		return
	}
	if err := tell(r.Context(), line, in); err != nil {
		answer(w, statusOf(err), api.Error{Error: err.Error(), Hint: fault.HintOf(err)})
		return
	}
	answer(w, http.StatusAccepted, map[string]string{"session": in.Session})
}

// statusOf tells who posts whether it may help to post again.
func statusOf(err error) int {
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch kind := fault.KindOf(err); {
	case large || kind == fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case kind == fault.Invalid:
		return http.StatusBadRequest
	}
	return http.StatusServiceUnavailable
}

func tell(ctx context.Context, line *gateway.Line, in In) error {
	id := ""
	if in.ID != "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", in.Session, in.ID)) // programs name things at length
		id = "webhook-" + hex.EncodeToString(sum[:16])
	}
	if in.Cancel {
		return line.Cancel(ctx, in.Session, id)
	}
	m := api.UserMessage{Text: in.Text, User: in.User}
	for _, b := range in.Images {
		p, err := line.PutPicture(ctx, b)
		if err != nil {
			return fmt.Errorf("take over a picture: %w", err)
		}
		m.Images = append(m.Images, p)
	}
	return line.Tell(ctx, in.Session, id, m)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

// Serve implements gateway.Channel.
func (c *channel) Serve(ctx context.Context, s *gateway.Session) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Ready():
		}
		events, _ := s.Take()
		for _, e := range events {
			if e.Type != api.FrameDone {
				continue
			}
			if err := c.deliver(ctx, s, e); err != nil {
				return // ctx has ended: it comes again
			}
			if err := s.Shown(e, nil); err != nil {
				c.log.ErrorContext(ctx, "what was posted cannot be kept", logattr.Session(s.ID), logattr.Err(err))
			}
		}
	}
}

// deliver posts an answer until it is taken, or ctx ends.
func (c *channel) deliver(ctx context.Context, s *gateway.Session, e gateway.Event) error {
	out := Out{Session: s.ID, Seq: e.Seq, Text: e.Answer.Text, ReplyTo: e.Answer.ReplyTo, Error: e.Answer.Error}
	for _, p := range e.Answer.Images {
		b, err := s.Picture(ctx, p)
		if err != nil {
			c.log.WarnContext(ctx, "a picture of an answer cannot be read", logattr.Session(s.ID), logattr.Err(err))
			continue
		}
		out.Images = append(out.Images, b)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return err
	}
	for pause := time.Second; ; pause = min(2*pause, maxPause) {
		if err = c.postOnce(ctx, body, e.Seq); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.log.WarnContext(ctx, "an answer is not taken", logattr.Session(s.ID), logattr.Err(err))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (c *channel) postOnce(ctx context.Context, body []byte, seq int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.post, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	req.Header.Set("Idempotency-Key", strconv.FormatInt(seq, 10))
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("post an answer: %s", strings.TrimSpace(resp.Status))
	}
	return nil
}
