package guestapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/capability"
	"github.com/xfeldman/aegisvm/internal/fault"
)

const (
	// maxChat bounds a conversation that is sent to a model.
	maxChat = 8 << 20
	// maxChatAnswer bounds what a model server may say.
	maxChatAnswer = 64 << 20
	// modelDial protects a request from a model server that is not there.
	modelDial = 5 * time.Second
	// modelSilence is what a model may take to its first word: it may have to be loaded.
	modelSilence = 10 * time.Minute
)

// modelClient returns a client that goes where it is sent, and nowhere else.
func modelClient() *http.Client {
	dialer := net.Dialer{Timeout: modelDial}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, ResponseHeaderTimeout: modelSilence,
			MaxIdleConnsPerHost: maxChats, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// chat answers POST /v1/llm/chat: the body is that of an OpenAI chat completion, whose model
// is "host:PROVIDER/MODEL", "PROVIDER/MODEL", or MODEL next to a field "provider". It goes to
// the model server of that provider on the host, and the answer comes as the server sends
// it, streamed if "stream" asks for that.
func (s *Server) chat(c *call) error {
	done, err := take(c.peer.chats, "answers of models")
	if err != nil {
		return err
	}
	defer done()
	provider, body, err := s.chatOf(c)
	if err != nil {
		return err
	}
	release, err := s.conf.Instances.Retain(c.ctx(), c.id(), "answer of "+provider)
	if err != nil {
		return err
	}
	defer release()
	req, err := http.NewRequestWithContext(c.ctx(), http.MethodPost, s.conf.Models[provider]+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.models.Do(req)
	if err != nil {
		return modelFault(c.ctx(), provider, err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	return passOn(c.w, res, provider)
}

// chatOf reads which provider is asked, whether the caller may ask it, and what.
func (s *Server) chatOf(c *call) (provider string, body []byte, err error) {
	var req map[string]json.RawMessage
	if err := decode(c, &req, false); err != nil {
		return "", nil, err
	}
	var model string
	if json.Unmarshal(req["model"], &model) != nil || model == "" {
		return "", nil, fault.New(fault.Invalid, "the request names no model").WithHint(`as in: "model": "host:ollama/llama3.2"`)
	}
	if p, has := req["provider"]; has {
		if err := json.Unmarshal(p, &provider); err != nil {
			return "", nil, fault.New(fault.Invalid, "the provider is no string")
		}
		delete(req, "provider")
	} else {
		provider, model, _ = strings.Cut(strings.TrimPrefix(model, "host:"), "/")
	}
	if s.conf.Models[provider] == "" || model == "" {
		return "", nil, fault.New(fault.NotFound, "there is no model server %q on the host", provider).
			WithHint("there are: %s", strings.Join(slices.Sorted(maps.Keys(s.conf.Models)), ", "))
	}
	if !capability.Has(c.self.Spec.Rights().LLM, provider) {
		return "", nil, fault.New(fault.Denied, "this instance may not use the model server %q", provider).
			WithHint("the capability llm decides; it is given on the host: aegis instance start --capabilities FILE")
	}
	if req["model"], err = json.Marshal(model); err == nil {
		body, err = json.Marshal(req)
	}
	return provider, body, err
}

func modelFault(ctx context.Context, provider string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
		return fault.New(fault.Timeout, "the model server %s on the host does not answer", provider)
	}
	return fault.New(fault.Unavailable, "the model server %s on the host does not answer", provider).By(fault.Host).
		WithHint("is it running there?")
}

// passOn sends an answer on as it comes.
func passOn(w http.ResponseWriter, res *http.Response, provider string) error {
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		return fault.New(fault.Unavailable, "the model server %s on the host sends its clients elsewhere", provider)
	}
	if t := res.Header.Get("Content-Type"); t != "" {
		w.Header().Set("Content-Type", t)
	}
	w.WriteHeader(res.StatusCode)
	flush := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for left := int64(maxChatAnswer); left > 0; {
		n, err := res.Body.Read(buf[:min(int64(len(buf)), left)])
		left -= int64(n)
		if n > 0 {
			_, lost := w.Write(buf[:n])
			if errors.Join(lost, flush.Flush()) != nil {
				return nil //nolint:nilerr // the client has gone
			}
		}
		if err == io.EOF { // in the chain of another error it is no end
			return nil
		}
		if err != nil {
			break
		}
	}
	panic(http.ErrAbortHandler) // the client must not take it for all
}
