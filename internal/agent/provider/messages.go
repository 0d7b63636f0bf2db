package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	anthropic "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"github.com/xfeldman/aegisvm/internal/agent/history"
)

const (
	anthropicURL = "https://api.anthropic.com/"
	// defaultMaxTokens is sent where the user sets none: this API wants a number.
	defaultMaxTokens = 8192
)

// messages asks over Anthropic's messages.
type messages struct {
	server
	service anthropic.MessageService
	tools   wire[anthropic.ToolUnionParam]
}

func newMessages(s server, client *http.Client, baseURL string) *messages {
	if baseURL == "" {
		baseURL = anthropicURL
	}
	opts := []option.RequestOption{
		option.WithHTTPClient(client), option.WithBaseURL(baseURL), option.WithMaxRetries(0),
		option.WithHeader("anthropic-version", "2023-06-01"),
	}
	if s.key.Len() > 0 {
		opts = append(opts, option.WithAPIKey(s.key.Reveal()))
	}
	return &messages{server: s, service: anthropic.NewMessageService(opts...)}
}

// Stream implements Model.
func (c *messages) Stream(ctx context.Context, r Request, on func(Delta)) (Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.service.NewStreaming(ctx, c.params(r))
	defer stream.Close() //nolint:errcheck // what was read is all that matters
	acc := messagesAnswer{model: c.model}
	for stream.Next() {
		if err := acc.add(stream.Current(), on); err != nil {
			return Answer{}, c.broken(ctx, err)
		}
	}
	if err := stream.Err(); err != nil {
		return Answer{}, c.trouble(ctx, err)
	}
	if !acc.ended {
		return Answer{}, c.broken(ctx, errCut)
	}
	return acc.answer(), nil
}

func (c *messages) params(r Request) anthropic.MessageNewParams {
	p := anthropic.MessageNewParams{
		Model: c.model, MaxTokens: defaultMaxTokens,
		CacheControl: anthropic.NewCacheControlEphemeralParam(),
	}
	if r.MaxTokens > 0 {
		p.MaxTokens = int64(r.MaxTokens)
	}
	if r.System != "" {
		p.System = []anthropic.TextBlockParam{{Text: r.System}}
	}
	for _, m := range r.Messages {
		role, blocks := anthropic.MessageParamRoleUser, c.blocks(r, m)
		if m.Role == history.Assistant {
			role = anthropic.MessageParamRoleAssistant
		}
		// The results of one round are one message of the user.
		if n := len(p.Messages); n > 0 && p.Messages[n-1].Role == role {
			p.Messages[n-1].Content = append(p.Messages[n-1].Content, blocks...)
			continue
		}
		p.Messages = append(p.Messages, anthropic.MessageParam{Role: role, Content: blocks})
	}
	p.Tools = c.tools.of(r.Tools, messagesTool)
	if r.NoCalls && len(r.Tools) > 0 {
		p.ToolChoice.OfNone = &anthropic.ToolChoiceNoneParam{}
	}
	return p
}

func messagesTool(t Tool) anthropic.ToolUnionParam {
	return encoded(anthropic.ToolUnionParam{OfTool: &anthropic.ToolParam{
		Name: t.Name, Description: anthropic.String(t.Description), InputSchema: inputSchema(t.Schema),
	}}, param.Override[anthropic.ToolUnionParam])
}

// inputSchema takes a schema apart: the SDK names some of its fields.
func inputSchema(schema map[string]any) anthropic.ToolInputSchemaParam {
	out := anthropic.ToolInputSchemaParam{Properties: map[string]any{}, ExtraFields: map[string]any{}}
	for k, v := range schema {
		switch k {
		case "type":
		case "properties":
			out.Properties = v
		default:
			out.ExtraFields[k] = v
		}
	}
	return out
}

func (c *messages) blocks(r Request, m history.Message) []anthropic.ContentBlockParamUnion {
	var out []anthropic.ContentBlockParamUnion
	switch m.Role {
	case history.Tool:
		result := &anthropic.ToolResultBlockParam{ToolUseID: m.CallID, IsError: anthropic.Bool(m.Failed)}
		if m.Text != "" {
			result.Content = append(result.Content, anthropic.ToolResultBlockParamContentUnion{OfText: &anthropic.TextBlockParam{Text: m.Text}})
		}
		for _, b := range c.pictures(r, m) {
			result.Content = append(result.Content, anthropic.ToolResultBlockParamContentUnion{OfText: b.OfText, OfImage: b.OfImage})
		}
		return append(out, anthropic.ContentBlockParamUnion{OfToolResult: result})
	case history.Assistant:
		for _, raw := range opaque(m, c.model) {
			out = append(out, param.Override[anthropic.ContentBlockParamUnion](raw))
		}
		// White space at the end of the last answer is refused, and text that is nothing else anywhere.
		if text := strings.TrimRight(m.Text, " \t\r\n"); text != "" {
			out = append(out, anthropic.NewTextBlock(text))
		}
		for _, call := range m.Calls {
			out = append(out, anthropic.NewToolUseBlock(call.ID, call.Args, call.Name))
		}
	case history.User:
		out = c.pictures(r, m)
		if strings.TrimSpace(m.Text) != "" {
			out = append(out, anthropic.NewTextBlock(m.Text))
		}
	}
	return out
}

func (c *messages) pictures(r Request, m history.Message) []anthropic.ContentBlockParamUnion {
	var out []anthropic.ContentBlockParamUnion
	for _, p := range m.Images {
		if data, instead := picture(r, p); instead != "" {
			out = append(out, anthropic.NewTextBlock(instead))
		} else {
			out = append(out, anthropic.NewImageBlockBase64(p.MediaType, base64.StdEncoding.EncodeToString(data)))
		}
	}
	return out
}

// messagesAnswer puts an answer together, block by block.
type messagesAnswer struct {
	model  string
	blocks []*block
	stop   anthropic.StopReason
	in     int64
	out    int64
	ended  bool
}

type block struct {
	kind, id, name  string
	text, signature strings.Builder
	raw             string // of a block that is kept as it came
}

func (a *messagesAnswer) add(ev anthropic.MessageStreamEventUnion, on func(Delta)) error {
	switch ev.Type {
	case "message_start":
		a.in = ev.Message.Usage.InputTokens + ev.Message.Usage.CacheReadInputTokens + ev.Message.Usage.CacheCreationInputTokens
	case "content_block_start":
		if ev.Index != int64(len(a.blocks)) {
			return errMalformed
		}
		b := &block{kind: ev.ContentBlock.Type, id: ev.ContentBlock.ID, name: ev.ContentBlock.Name, raw: ev.ContentBlock.RawJSON()}
		b.text.WriteString(ev.ContentBlock.Text)
		a.blocks = append(a.blocks, b)
	case "content_block_delta":
		if ev.Index < 0 || ev.Index >= int64(len(a.blocks)) {
			return errMalformed
		}
		a.blocks[ev.Index].add(ev.Delta, on)
	case "message_delta":
		a.stop, a.out = ev.Delta.StopReason, ev.Usage.OutputTokens
	case "message_stop":
		a.ended = true
	}
	return nil
}

func (b *block) add(d anthropic.MessageStreamEventUnionDelta, on func(Delta)) {
	switch d.Type {
	case "text_delta":
		b.text.WriteString(d.Text)
		on(Delta{Text: d.Text})
	case "thinking_delta":
		b.text.WriteString(d.Thinking)
		on(Delta{Reasoning: d.Thinking})
	case "signature_delta":
		b.signature.WriteString(d.Signature)
	case "input_json_delta":
		b.text.WriteString(d.PartialJSON)
	}
}

func (a *messagesAnswer) answer() Answer {
	out := Answer{Message: history.Message{Role: history.Assistant}, Stop: Done, Tokens: int(a.in + a.out)}
	var text, thought []string
	for _, b := range a.blocks {
		switch b.kind {
		case "text":
			text = append(text, b.text.String())
		case "thinking":
			thought = append(thought, b.text.String())
			raw, err := json.Marshal(anthropic.NewThinkingBlock(b.signature.String(), b.text.String()))
			if err == nil && b.signature.Len() > 0 { // one without a signature is not taken back
				out.Message.Opaque = append(out.Message.Opaque, history.Opaque{Model: a.model, Raw: raw})
			}
		case "redacted_thinking":
			out.Message.Opaque = append(out.Message.Opaque, history.Opaque{Model: a.model, Raw: json.RawMessage(b.raw)})
		case "tool_use":
			out.Message.Calls = append(out.Message.Calls, history.NewCall(b.id, b.name, b.text.String()))
		}
	}
	out.Message.Text, out.Reasoning = strings.Join(text, ""), strings.Join(thought, "\n")
	out.Message.Calls = history.Unique(out.Message.Calls)
	if a.stop == anthropic.StopReasonMaxTokens || a.stop == "model_context_window_exceeded" {
		out.Stop = Length
	}
	if a.stop == anthropic.StopReasonRefusal {
		out.Stop = Refused
	}
	return out
}

// trouble makes an Error of an error of the SDK. Errors in the middle of a stream have
// the status of its beginning.
func (c *messages) trouble(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e, ok := errors.AsType[*anthropic.Error](err)
	if !ok {
		return c.broken(ctx, err)
	}
	st := status{code: e.StatusCode, body: e.RawJSON()}
	if e.Response != nil {
		st.header = e.Response.Header
	}
	if st.code == http.StatusOK {
		st.code = http.StatusInternalServerError
	}
	return c.refusal(st)
}
