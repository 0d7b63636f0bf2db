package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// Model is a language model. It may be asked from many goroutines.
type Model interface {
	// Stream asks the model and calls on, from this goroutine, with what it says as it
	// comes. The Answer is whole. Every error is an *Error, but that of an ended ctx,
	// which is ctx's cause.
	Stream(ctx context.Context, r Request, on func(Delta)) (Answer, error)
}

// Request is what a model is asked.
type Request struct {
	System    string
	Messages  []history.Message // valid: see history.Check
	Tools     []Tool
	NoCalls   bool // the model may not call Tools; they are there for the calls in Messages
	MaxTokens int  // of the answer; 0 is the model's own limit
	// Image reads a picture. A picture that it cannot read is named in the text instead.
	Image func(api.Picture) ([]byte, error)
}

// Tool is what a model is told of a tool.
type Tool struct {
	Name        string // letters, digits, '_' and '-', at most 64
	Description string
	Schema      map[string]any // of its arguments: a JSON schema of an object
}

// Delta is a piece of an answer.
type Delta struct {
	Text      string
	Reasoning string
	// Again says that what came before in this answer is void: the model is asked anew.
	Again bool
}

// Answer is what a model said.
type Answer struct {
	Message   history.Message // of the assistant; without text and calls if it said nothing
	Reasoning string          // what it told of its thoughts
	Stop      Stop
	Tokens    int // that were paid for, in and out; 0 where the server does not say
}

// Stop is why an answer ended.
type Stop string

// The reasons.
const (
	Done    Stop = "done"
	Length  Stop = "length"  // MaxTokens, or the context, was reached
	Refused Stop = "refused" // by the model or a filter before it
)

// Choice says which model to ask, and how.
type Choice struct {
	Model   string // "openai/gpt-5"; see the package doc
	BaseURL string // of a server other than the provider's own
	API     string // "chat" or "responses"; "" is what suits the server
	Key     secret.Value
	KeyName string // the environment variable that Key is from, for messages
	// GuestAPI is where models of the host are asked: http://127.0.0.1:7777.
	GuestAPI  string
	Transport http.RoundTripper // nil is the default
	Timeouts  Timeouts
}

// The providers that a name can begin with.
const (
	OpenAI    = "openai"
	Anthropic = "anthropic"
	Host      = "host" // "host:SERVER/MODEL"
	Other     = "other"
)

// hostServers are the model servers that the host may offer.
var hostServers = []string{"ollama", "lmstudio", "vllm"}

// Split returns the provider that a model's name means, and the name it has there.
func Split(model string, hasBaseURL bool) (provider, name string, err error) {
	prefix, rest, cut := strings.Cut(model, "/")
	switch {
	case cut && rest != "" && prefix == "openai":
		return OpenAI, rest, nil
	case cut && rest != "" && (prefix == "anthropic" || prefix == "claude"):
		return Anthropic, rest, nil
	case strings.HasPrefix(prefix, "host:"):
		server := strings.TrimPrefix(prefix, "host:")
		for _, s := range hostServers {
			if s == server && rest != "" {
				return Host, server + "/" + rest, nil
			}
		}
	case hasBaseURL && model != "":
		return Other, model, nil
	}
	return "", "", fault.New(fault.Invalid, "%q is not a model", model).
		WithHint(`set "model" to openai/NAME, anthropic/NAME or host:ollama/NAME, or add a "base_url" for another server`)
}

// DefaultKey is the environment variable that has the key of a provider, or "".
func DefaultKey(provider string) string {
	switch provider {
	case OpenAI:
		return "OPENAI_API_KEY"
	case Anthropic:
		return "ANTHROPIC_API_KEY"
	}
	return ""
}

// New returns the model that c means. It connects to nothing.
func New(c Choice) (Model, error) {
	provider, name, err := Split(c.Model, c.BaseURL != "")
	if err != nil {
		return nil, err
	}
	if c.Key.Len() == 0 && (c.KeyName != "" || c.BaseURL == "") && provider != Host {
		return nil, noKey(provider, c.KeyName)
	}
	s := server{provider: provider, model: name, keyName: c.KeyName, key: c.Key}
	client := &http.Client{Transport: &watchdog{next: transport(c.Transport), limits: c.Timeouts.orDefault(provider)}}
	switch provider {
	case Anthropic:
		return newMessages(s, client, c.BaseURL), nil
	case Host:
		client.Transport = &rewrite{next: client.Transport, path: "/v1/llm/chat"}
		return newChat(s, client, strings.TrimSuffix(c.GuestAPI, "/")+"/"), nil
	}
	if c.API == "responses" || c.API == "" && c.BaseURL == "" {
		return newResponses(s, client, c.BaseURL), nil
	}
	return newChat(s, client, c.BaseURL), nil
}

// server is whom a model asks, in the words of messages to the user.
type server struct {
	provider, model, keyName string
	key                      secret.Value
}

func transport(t http.RoundTripper) http.RoundTripper {
	if t == nil {
		return http.DefaultTransport
	}
	return t
}

// rewrite sends every request to one path, whatever the SDK calls it.
type rewrite struct {
	next http.RoundTripper
	path string
}

// RoundTrip implements http.RoundTripper.
func (w *rewrite) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawPath = w.path, ""
	return w.next.RoundTrip(r)
}

// parts returns a message's text, if there is any, and its pictures, as a model's SDK has
// them: image is given a URL that holds the picture.
func parts[T any](r Request, m history.Message, text, image func(string) T) []T {
	var out []T
	if m.Text != "" {
		out = append(out, text(m.Text))
	}
	for _, p := range m.Images {
		if data, instead := picture(r, p); instead != "" {
			out = append(out, text(instead))
		} else {
			out = append(out, image("data:"+p.MediaType+";base64,"+base64.StdEncoding.EncodeToString(data)))
		}
	}
	return out
}

// picture returns what is in a picture, or a text in its place.
func picture(r Request, p api.Picture) (data []byte, instead string) {
	err := os.ErrNotExist
	if r.Image != nil {
		data, err = r.Image(p)
	}
	if err != nil {
		return nil, fmt.Sprintf("[the image %s cannot be read: %v]", p.Blob, err)
	}
	return data, ""
}

// opaque returns the parts of m that its model wants back, if it is the one asked.
func opaque(m history.Message, model string) []json.RawMessage {
	var out []json.RawMessage
	for _, o := range m.Opaque {
		if o.Model == model && len(o.Raw) > 0 {
			out = append(out, o.Raw)
		}
	}
	return out
}
