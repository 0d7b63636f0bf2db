package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Error is why there is no answer.
type Error struct {
	Fault *fault.Error // what to tell the person in the chat
	// Retry says that the same request may be answered later, and After how much later
	// the server wants it.
	Retry bool
	After time.Duration
	// TooLong says that the conversation does not fit: less of it may be answered.
	TooLong bool
	lost    bool // the connection broke
}

// Error implements error.
func (t *Error) Error() string { return t.Fault.Error() }

// Unwrap returns the fault, with its kind and hint.
func (t *Error) Unwrap() error { return t.Fault }

// maxDetail bounds what is shown of a server's own words, in characters.
const maxDetail = 300

// status is an answer that is no success, whichever SDK brought it.
type status struct {
	code   int
	body   string // JSON, if the server was kind
	header http.Header
}

// names of providers, for people.
func (s server) String() string {
	switch s.provider {
	case OpenAI:
		return "OpenAI"
	case Anthropic:
		return "Anthropic"
	case Host:
		name, _, _ := strings.Cut(s.model, "/")
		return name + " on the host"
	}
	return "the model server"
}

func noKey(provider, keyName string) error {
	if keyName == "" {
		keyName = DefaultKey(provider)
	}
	if keyName == "" {
		keyName = "the variable that api_key_env names"
	}
	return &Error{Fault: fault.New(fault.Denied, "there is no key for %s: %s is not set", server{provider: provider}, keyName).
		WithHint("on the host: aegis secret set %s, then start the instance with --secret %s", keyName, keyName)}
}

// refusal makes an Error of an answer that is no success.
func (s server) refusal(st status) *Error {
	detail, code := s.detail(st.body)
	low := strings.ToLower(code + " " + detail)
	say := func(k fault.Kind, hint, format string, args ...any) *Error {
		msg := fmt.Sprintf(format, args...)
		if detail != "" {
			msg += ": " + detail
		}
		return &Error{Fault: fault.New(k, "%s", msg).WithHint("%s", hint)}
	}
	switch {
	case has(low, "insufficient_quota", "credit balance", "billing"):
		return say(fault.Denied, "look at the account's plan and billing, or choose another model", "%s does not serve this account", s)
	case has(low, "context_length", "prompt is too long", "context window", "maximum context", "too many tokens") || st.code == http.StatusRequestEntityTooLarge:
		t := say(fault.TooLarge, "begin a new session, or set context_chars lower in agent.json", "the conversation is too long for %s", s.model)
		t.TooLong = true
		return t
	case st.code == http.StatusUnauthorized, has(low, "authentication_error", "invalid_api_key"):
		return say(fault.Denied, fmt.Sprintf("set a good key on the host: aegis secret set %s, then restart the instance", s.keyOrDefault()), "%s refused the key", s)
	case st.code == http.StatusForbidden:
		return say(fault.Denied, "look at what the key, or the instance's llm capability, allows", "%s does not allow this", s)
	case st.code == http.StatusNotFound:
		return say(fault.NotFound, `look at "model" and "base_url" in /workspace/.aegis/agent.json`, "%s does not know %s", s, s.model)
	case st.code == http.StatusTooManyRequests, has(low, "rate_limit"):
		t := say(fault.Exhausted, "wait a little, or choose another model", "%s is asked too often", s)
		t.Retry, t.After = true, retryAfter(st.header)
		return t
	case st.code >= 500, st.code == http.StatusRequestTimeout, st.code == http.StatusConflict:
		t := say(fault.Unavailable, "send the message again in a while, or choose another model", "%s has trouble (status %d)", s, st.code)
		t.Retry, t.After = true, retryAfter(st.header)
		return t
	}
	return say(fault.Invalid, "begin a new session; if it comes again, another model may do", "%s refused the request (status %d)", s, st.code)
}

func has(s string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

func (s server) keyOrDefault() string {
	if s.keyName != "" {
		return s.keyName
	}
	if k := DefaultKey(s.provider); k != "" {
		return k
	}
	return "NAME"
}

// detail returns the message and the code in a body. It shows no key.
func (s server) detail(body string) (message, code string) {
	type inner struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Code    any    `json:"code"`
	}
	var in struct {
		inner
		Error json.RawMessage `json:"error"`
	}
	e := inner{Message: body}
	if json.Unmarshal([]byte(body), &in) == nil {
		e = in.inner
		var text string
		switch {
		case len(in.Error) == 0:
		case json.Unmarshal(in.Error, &text) == nil:
			e.Message = text
		default:
			e = inner{}
			_ = json.Unmarshal(in.Error, &e) // what cannot be read is not shown
		}
	}
	return s.clean(e.Message), fmt.Sprint(e.Type, " ", e.Code)
}

// clean makes a server's words fit to be shown.
func (s server) clean(text string) string {
	if key := s.key.Reveal(); key != "" {
		text = strings.ReplaceAll(text, key, "[key]")
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if strings.HasPrefix(text, "<") { // a proxy's page
		return ""
	}
	if utf8.RuneCountInString(text) > maxDetail {
		text = string([]rune(text)[:maxDetail]) + "..."
	}
	return strings.TrimSuffix(text, ".")
}

// retryAfter returns how long a server asks to wait: seconds, or a date. What is longer than
// some days is no answer to the question.
func retryAfter(h http.Header) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 && ms < 1e9 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	v := h.Get("Retry-After")
	if n, err := strconv.ParseFloat(v, 64); err == nil && n > 0 && n < 1e6 {
		return time.Duration(n * float64(time.Second))
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// broken makes an Error of a connection or a stream that broke. An error of ctx stays
// what it is.
func (s server) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t := &Error{Retry: true}
	var (
		syntax *json.SyntaxError
		shape  *json.UnmarshalTypeError
	)
	switch {
	case errors.Is(err, errFirstByte):
		t.Fault = fault.Wrap(fault.Timeout, err, "%s", s).WithHint("see whether the server is up; a large model may need a higher timeout_s in agent.json")
	case errors.Is(err, errIdle):
		t.Fault = fault.Wrap(fault.Timeout, err, "%s", s).WithHint("send the message again")
	case errors.Is(err, errTooLong):
		t.Fault, t.Retry = fault.Wrap(fault.TooLarge, err, "%s", s).WithHint("set max_tokens in agent.json"), false
	case errors.As(err, &syntax), errors.As(err, &shape), errors.Is(err, errMalformed):
		t.Fault = fault.New(fault.Unavailable, "%s answered with something that is not its protocol", s).WithHint(`see whether "base_url" is the right one`)
	case errors.Is(err, errCut):
		t.Fault = fault.New(fault.Unavailable, "the connection to %s ended in the middle of the answer", s).WithHint("send the message again")
	default:
		t.lost = true
		t.Fault = fault.New(fault.Unavailable, "%s cannot be reached: %s", s, s.clean(rootOf(err).Error())).
			WithHint("see whether the instance has network (--egress) and the server is up, then send the message again")
	}
	return t
}

// rootOf returns the innermost error: the outer ones tell URLs and types of the SDK.
func rootOf(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

var (
	errCut       = errors.New("the stream was cut")
	errMalformed = errors.New("malformed event")
)
