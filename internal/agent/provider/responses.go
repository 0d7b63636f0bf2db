package provider

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	openai "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"

	"github.com/xfeldman/aegisvm/internal/agent/history"
)

// respond asks over OpenAI's responses. The server stores nothing: each request has the
// whole conversation, with what the model thought, encrypted, as it came.
type respond struct {
	server
	service responses.ResponseService
	tools   wire[responses.ToolUnionParam]
}

func newResponses(s server, client *http.Client, baseURL string) *respond {
	return &respond{server: s, service: responses.NewResponseService(openaiOptions(s, client, baseURL)...)}
}

// Stream implements Model.
func (c *respond) Stream(ctx context.Context, r Request, on func(Delta)) (Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.service.NewStreaming(ctx, c.params(r))
	defer stream.Close() //nolint:errcheck // what was read is all that matters
	acc := respondAnswer{model: c.model}
	for stream.Next() {
		ev := stream.Current()
		if ev.Type == "error" || ev.Type == "response.failed" {
			return Answer{}, c.failed(ev)
		}
		acc.add(ev, on)
	}
	if err := stream.Err(); err != nil {
		return Answer{}, c.openaiTrouble(ctx, err)
	}
	if acc.end == "" {
		return Answer{}, c.broken(ctx, errCut)
	}
	return acc.answer(), nil
}

// failed makes an Error of an event that ends the stream.
func (c *respond) failed(ev responses.ResponseStreamEventUnion) error {
	body := map[string]string{"code": ev.Code, "message": ev.Message}
	if ev.Type == "response.failed" {
		body = map[string]string{"code": string(ev.Response.Error.Code), "message": ev.Response.Error.Message}
	}
	raw, err := json.Marshal(body)
	if err != nil { // strings always encode
		raw = nil
	}
	return c.refusal(status{code: http.StatusInternalServerError, body: string(raw)})
}

func (c *respond) params(r Request) responses.ResponseNewParams {
	p := responses.ResponseNewParams{
		Model:   c.model,
		Store:   openai.Bool(false),
		Include: []responses.ResponseIncludable{responses.ResponseIncludableReasoningEncryptedContent},
	}
	if r.System != "" {
		p.Instructions = openai.String(r.System)
	}
	if r.MaxTokens > 0 {
		p.MaxOutputTokens = openai.Int(int64(r.MaxTokens))
	}
	var items responses.ResponseInputParam
	for _, m := range r.Messages {
		items = append(items, c.items(r, m)...)
	}
	p.Input.OfInputItemList = items
	p.Tools = c.tools.of(r.Tools, respondTool)
	if r.NoCalls && len(r.Tools) > 0 {
		p.ToolChoice.OfToolChoiceMode = openai.Opt(responses.ToolChoiceOptionsNone)
	}
	return p
}

func respondTool(t Tool) responses.ToolUnionParam {
	return encoded(responses.ToolUnionParam{OfFunction: &responses.FunctionToolParam{
		Name: t.Name, Description: openai.String(t.Description), Parameters: t.Schema, Strict: openai.Bool(false),
	}}, param.Override[responses.ToolUnionParam])
}

// items returns what a message is in this protocol.
func (c *respond) items(r Request, m history.Message) []responses.ResponseInputItemUnionParam {
	switch m.Role {
	case history.Tool:
		item := responses.ResponseInputItemParamOfFunctionCallOutput(m.Text)
		if len(m.Images) > 0 {
			item = responses.ResponseInputItemParamOfFunctionCallOutput(c.outputs(r, m))
		}
		item.OfFunctionCallOutput.CallID = openai.String(m.CallID)
		return []responses.ResponseInputItemUnionParam{item}
	case history.Assistant:
		var out []responses.ResponseInputItemUnionParam
		for _, raw := range opaque(m, c.model) {
			out = append(out, param.Override[responses.ResponseInputItemUnionParam](raw))
		}
		if m.Text != "" {
			out = append(out, responses.ResponseInputItemParamOfMessage(m.Text, responses.EasyInputMessageRoleAssistant))
		}
		for _, call := range m.Calls {
			out = append(out, responses.ResponseInputItemParamOfFunctionCall(string(call.Args), call.ID, call.Name))
		}
		return out
	case history.User:
	}
	if len(m.Images) == 0 {
		return []responses.ResponseInputItemUnionParam{responses.ResponseInputItemParamOfMessage(m.Text, responses.EasyInputMessageRoleUser)}
	}
	return []responses.ResponseInputItemUnionParam{responses.ResponseInputItemParamOfMessage(c.contents(r, m), responses.EasyInputMessageRoleUser)}
}

func (c *respond) contents(r Request, m history.Message) responses.ResponseInputMessageContentListParam {
	return parts(r, m, func(text string) responses.ResponseInputContentUnionParam {
		return responses.ResponseInputContentUnionParam{OfInputText: &responses.ResponseInputTextParam{Text: text}}
	}, func(url string) responses.ResponseInputContentUnionParam {
		return responses.ResponseInputContentUnionParam{OfInputImage: &responses.ResponseInputImageParam{
			ImageURL: openai.String(url), Detail: responses.ResponseInputImageDetailAuto,
		}}
	})
}

func (c *respond) outputs(r Request, m history.Message) responses.ResponseFunctionCallOutputItemListParam {
	return parts(r, m, func(text string) responses.ResponseFunctionCallOutputItemUnionParam {
		return responses.ResponseFunctionCallOutputItemUnionParam{OfInputText: &responses.ResponseInputTextContentParam{Text: text}}
	}, func(url string) responses.ResponseFunctionCallOutputItemUnionParam {
		return responses.ResponseFunctionCallOutputItemUnionParam{OfInputImage: &responses.ResponseInputImageContentParam{ImageURL: openai.String(url)}}
	})
}

// respondAnswer puts an answer together.
type respondAnswer struct {
	model           string
	message         history.Message
	text, reasoning strings.Builder
	refused         bool
	end             string // the event that ended it
	why             string // of one that is incomplete
	tokens          int
}

func (a *respondAnswer) add(ev responses.ResponseStreamEventUnion, on func(Delta)) {
	switch ev.Type {
	case "response.output_text.delta":
		a.text.WriteString(ev.Delta)
		on(Delta{Text: ev.Delta})
	case "response.refusal.delta":
		a.refused = true
		a.text.WriteString(ev.Delta)
		on(Delta{Text: ev.Delta})
	case "response.reasoning_summary_text.delta", "response.reasoning_text.delta":
		a.reasoning.WriteString(ev.Delta)
		on(Delta{Reasoning: ev.Delta})
	case "response.output_item.done":
		switch ev.Item.Type {
		case "function_call":
			a.message.Calls = append(a.message.Calls, history.NewCall(ev.Item.CallID, ev.Item.Name, ev.Item.Arguments.OfString))
		case "reasoning":
			a.message.Opaque = append(a.message.Opaque, history.Opaque{Model: a.model, Raw: json.RawMessage(ev.Item.RawJSON())})
		}
	case "response.completed", "response.incomplete":
		a.end = ev.Type
		a.why = ev.Response.IncompleteDetails.Reason
		a.tokens = int(ev.Response.Usage.TotalTokens)
	}
}

func (a *respondAnswer) answer() Answer {
	m := a.message
	m.Role, m.Text, m.Calls = history.Assistant, a.text.String(), history.Unique(m.Calls)
	if len(m.Calls) == 0 {
		m.Opaque = nil // what was thought on the way to a final answer is not asked for again
	}
	out := Answer{Message: m, Reasoning: a.reasoning.String(), Stop: Done, Tokens: a.tokens}
	switch {
	case a.refused, a.why == "content_filter":
		out.Stop = Refused
	case a.end == "response.incomplete":
		out.Stop = Length
	}
	return out
}
