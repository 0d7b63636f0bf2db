package provider

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	openai "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/shared"

	"github.com/xfeldman/aegisvm/internal/agent/history"
)

// openaiURL is where OpenAI's own servers are.
const openaiURL = "https://api.openai.com/v1/"

// chat asks over chat completions.
type chat struct {
	server
	service openai.ChatCompletionService
	own     bool // OpenAI's server, which knows the newest fields
	tools   wire[openai.ChatCompletionToolUnionParam]
}

func newChat(s server, client *http.Client, baseURL string) *chat {
	return &chat{server: s, service: openai.NewChatCompletionService(openaiOptions(s, client, baseURL)...), own: baseURL == ""}
}

// openaiOptions are what all services of the SDK are made with. Nothing is taken from the
// environment.
func openaiOptions(s server, client *http.Client, baseURL string) []option.RequestOption {
	if baseURL == "" {
		baseURL = openaiURL
	}
	opts := []option.RequestOption{option.WithHTTPClient(client), option.WithBaseURL(baseURL), option.WithMaxRetries(0)}
	if s.key.Len() > 0 {
		opts = append(opts, option.WithAPIKey(s.key.Reveal()))
	}
	return opts
}

// Stream implements Model.
func (c *chat) Stream(ctx context.Context, r Request, on func(Delta)) (Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.service.NewStreaming(ctx, c.params(r))
	defer stream.Close() //nolint:errcheck // what was read is all that matters
	var acc chatAnswer
	for stream.Next() {
		acc.add(stream.Current(), on)
	}
	if err := stream.Err(); err != nil {
		return Answer{}, c.openaiTrouble(ctx, err)
	}
	if acc.finish == "" {
		return Answer{}, c.broken(ctx, errCut)
	}
	return acc.answer(), nil
}

func (c *chat) params(r Request) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{Model: c.model}
	if r.System != "" {
		p.Messages = append(p.Messages, openai.SystemMessage(r.System))
	}
	var pictures []openai.ChatCompletionContentPartUnionParam // of results, which are text here
	for i, m := range r.Messages {
		p.Messages = append(p.Messages, chatMessage(r, m))
		if m.Role == history.Tool {
			pictures = append(pictures, chatParts(r, history.Message{Images: m.Images})...)
		}
		if last := i+1 == len(r.Messages) || r.Messages[i+1].Role != history.Tool; last && len(pictures) > 0 {
			p.Messages = append(p.Messages, openai.UserMessage(pictures))
			pictures = nil
		}
	}
	p.Tools = c.tools.of(r.Tools, chatTool)
	if r.NoCalls && len(r.Tools) > 0 {
		p.ToolChoice.OfAuto = openai.String("none")
	}
	if c.own {
		p.StreamOptions.IncludeUsage = openai.Bool(true)
	}
	switch {
	case r.MaxTokens <= 0:
	case c.own:
		p.MaxCompletionTokens = openai.Int(int64(r.MaxTokens))
	default:
		p.MaxTokens = openai.Int(int64(r.MaxTokens))
	}
	return p
}

func chatTool(t Tool) openai.ChatCompletionToolUnionParam {
	return encoded(openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
		Name: t.Name, Description: openai.String(t.Description), Parameters: t.Schema,
	}), param.Override[openai.ChatCompletionToolUnionParam])
}

func chatMessage(r Request, m history.Message) openai.ChatCompletionMessageParamUnion {
	if m.Role == history.Tool {
		return openai.ToolMessage(m.Text, m.CallID)
	}
	if m.Role == history.Assistant {
		a := &openai.ChatCompletionAssistantMessageParam{}
		if m.Text != "" {
			a.Content.OfString = openai.String(m.Text)
		}
		for _, call := range m.Calls {
			a.ToolCalls = append(a.ToolCalls, openai.ChatCompletionMessageToolCallUnionParam{OfFunction: &openai.ChatCompletionMessageFunctionToolCallParam{
				ID:       call.ID,
				Function: openai.ChatCompletionMessageFunctionToolCallFunctionParam{Name: call.Name, Arguments: string(call.Args)},
			}})
		}
		return openai.ChatCompletionMessageParamUnion{OfAssistant: a}
	}
	if len(m.Images) == 0 {
		return openai.UserMessage(m.Text)
	}
	return openai.UserMessage(chatParts(r, m))
}

func chatParts(r Request, m history.Message) []openai.ChatCompletionContentPartUnionParam {
	return parts(r, m, openai.TextContentPart, func(url string) openai.ChatCompletionContentPartUnionParam {
		return openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: url})
	})
}

// chatAnswer puts an answer together.
type chatAnswer struct {
	text, reasoning, refusal strings.Builder
	calls                    []*chatCall
	finish                   string
	tokens                   int
}

type chatCall struct {
	index    int64
	id, name string
	args     strings.Builder
}

func (a *chatAnswer) add(chunk openai.ChatCompletionChunk, on func(Delta)) {
	a.tokens = max(a.tokens, int(chunk.Usage.TotalTokens))
	if len(chunk.Choices) == 0 {
		return
	}
	choice := chunk.Choices[0]
	d := choice.Delta
	// What servers of open models call the thoughts of theirs.
	for _, field := range []string{"reasoning_content", "reasoning"} {
		if f, ok := d.JSON.ExtraFields[field]; ok {
			if text := unquote(f.Raw()); text != "" {
				a.reasoning.WriteString(text)
				on(Delta{Reasoning: text})
				break
			}
		}
	}
	if d.Content != "" {
		a.text.WriteString(d.Content)
		on(Delta{Text: d.Content})
	}
	a.refusal.WriteString(d.Refusal)
	for _, t := range d.ToolCalls {
		a.call(t)
	}
	if choice.FinishReason != "" {
		a.finish = choice.FinishReason
	}
}

// call adds a piece of a call. Servers number calls by index; some leave the index out
// and send each call in one piece with an id of its own.
func (a *chatAnswer) call(t openai.ChatCompletionChunkChoiceDeltaToolCall) {
	var c *chatCall
	for _, known := range a.calls {
		if known.index == t.Index && (t.ID == "" || known.id == "" || known.id == t.ID) {
			c = known
		}
	}
	if c == nil {
		c = &chatCall{index: t.Index}
		a.calls = append(a.calls, c)
	}
	if t.ID != "" {
		c.id = t.ID
	}
	if c.name == "" {
		c.name = t.Function.Name
	}
	c.args.WriteString(t.Function.Arguments)
}

func (a *chatAnswer) answer() Answer {
	out := Answer{Message: history.Message{Role: history.Assistant, Text: a.text.String()}, Reasoning: a.reasoning.String(), Stop: Done, Tokens: a.tokens}
	for _, c := range a.calls {
		out.Message.Calls = append(out.Message.Calls, history.NewCall(c.id, c.name, c.args.String()))
	}
	out.Message.Calls = history.Unique(out.Message.Calls)
	switch a.finish {
	case "length":
		out.Stop = Length
	case "content_filter":
		out.Stop = Refused
	}
	if refusal := a.refusal.String(); refusal != "" && out.Message.Text == "" {
		out.Message.Text, out.Stop = refusal, Refused
	}
	return out
}

// openaiTrouble makes an Error of an error of the SDK.
func (s server) openaiTrouble(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*openai.Error](err); ok {
		st := status{code: e.StatusCode, body: e.RawJSON()}
		if e.Response != nil {
			st.header = e.Response.Header
		}
		return s.refusal(st)
	}
	if e, ok := errors.AsType[*ssestream.StreamError](err); ok {
		return s.refusal(status{code: http.StatusInternalServerError, body: string(e.Event.Data)})
	}
	return s.broken(ctx, err)
}

// unquote returns the text of a JSON string, or "".
func unquote(raw string) string {
	var s string
	if json.Unmarshal([]byte(raw), &s) != nil {
		return ""
	}
	return s
}
