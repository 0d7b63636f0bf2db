package modeltest

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

type messagesRequest struct {
	Model        string          `json:"model"`
	Stream       bool            `json:"stream"`
	MaxTokens    int             `json:"max_tokens"`
	CacheControl json.RawMessage `json:"cache_control"`
	System       []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	} `json:"system"`
	Messages []struct {
		Role    string          `json:"role"`
		Content []messagesBlock `json:"content"`
	} `json:"messages"`
	Tools []struct {
		Name        string         `json:"name"`
		Description string         `json:"description"`
		InputSchema map[string]any `json:"input_schema"`
	} `json:"tools"`
	ToolChoice struct {
		Type string `json:"type"`
	} `json:"tool_choice"`
}

type messagesBlock struct {
	Type   string `json:"type"`
	Text   string `json:"text"`
	Source struct {
		Type      string `json:"type"`
		MediaType string `json:"media_type"`
		Data      string `json:"data"`
	} `json:"source"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	IsError   bool            `json:"is_error"`
	Content   []messagesBlock `json:"content"`
	Thinking  string          `json:"thinking"`
	Signature string          `json:"signature"`
}

func readMessages(body []byte) (Request, error) {
	var in messagesRequest
	if err := strictjson.Decode(body, &in); err != nil {
		return Request{}, err
	}
	out := Request{Model: in.Model, NoCalls: in.ToolChoice.Type == "none"}
	if !in.Stream || in.Model == "" || in.MaxTokens <= 0 {
		return out, errors.New("no stream, no model, or no max_tokens")
	}
	for _, s := range in.System {
		out.System += s.Text
	}
	var t turns
	before := ""
	for _, m := range in.Messages {
		if m.Role == before {
			t.fail("two messages of the %s in a row", m.Role)
		}
		before = m.Role
		if m.Role == "assistant" {
			t.answer(m.Content)
		} else {
			t.blocks(m.Content)
		}
	}
	for _, f := range in.Tools {
		if err := tool(f.Name, f.Description, f.InputSchema); err != nil {
			return out, err
		}
		out.Tools = append(out.Tools, f.Name)
	}
	if len(in.Tools) == 0 {
		for _, m := range t.messages {
			if m.Role == history.Tool {
				t.fail("results, and no tools")
			}
		}
	}
	out.Messages = t.messages
	return out, t.end()
}

// answer reads a message of the assistant.
func (t *turns) answer(blocks []messagesBlock) {
	var texts []string
	var calls []Call
	for i, b := range blocks {
		switch b.Type {
		case "thinking":
			if b.Signature == "" || i > 0 {
				t.fail("thinking without a signature, or not at the beginning")
			}
		case "text":
			if strings.TrimSpace(b.Text) == "" {
				t.fail("an empty text")
			}
			texts = append(texts, b.Text)
		case "tool_use":
			calls = append(calls, Call{ID: b.ID, Name: b.Name, Args: string(b.Input)})
		default:
			t.fail("a block of type %q in an answer", b.Type)
		}
	}
	t.assistant(joined(texts), calls)
}

// blocks reads a message of the user: results, which come first, or what they say.
func (t *turns) blocks(blocks []messagesBlock) {
	var texts, images []string
	said := false
	for _, b := range blocks {
		switch b.Type {
		case "text":
			if strings.TrimSpace(b.Text) == "" {
				t.fail("an empty text")
			}
			said = true
			texts = append(texts, b.Text)
		case "image":
			said = true
			images = append(images, b.Source.Data)
		case "tool_result":
			if said {
				t.fail("a result after other content")
			}
			var text strings.Builder
			var pictures []string
			for _, c := range b.Content {
				if c.Type == "image" {
					pictures = append(pictures, c.Source.Data)
				} else {
					text.WriteString(c.Text)
				}
			}
			t.result(b.ToolUseID, text.String(), pictures)
		default:
			t.fail("a block of type %q of the user", b.Type)
		}
	}
	if said {
		t.user(joined(texts), images)
	}
}

func messagesEvents(model string, s Step) []event {
	ev := func(kind string, fields map[string]any) event {
		fields["type"] = kind
		return event{name: kind, data: fields}
	}
	index := 0
	out := []event{
		ev("message_start", map[string]any{"message": map[string]any{
			"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": []any{}, "stop_reason": nil, "stop_sequence": nil,
			"usage": map[string]any{"input_tokens": 10, "output_tokens": 1},
		}}),
		ev("ping", map[string]any{}),
	}
	add := func(start map[string]any, deltas ...map[string]any) {
		out = append(out, ev("content_block_start", map[string]any{"index": index, "content_block": start}))
		for _, d := range deltas {
			out = append(out, ev("content_block_delta", map[string]any{"index": index, "delta": d}))
		}
		out = append(out, ev("content_block_stop", map[string]any{"index": index}))
		index++
	}
	if s.Reasoning != "" {
		var ds []map[string]any
		for _, p := range pieces(s.Reasoning) {
			ds = append(ds, map[string]any{"type": "thinking_delta", "thinking": p})
		}
		ds = append(ds, map[string]any{"type": "signature_delta", "signature": "c2ln"})
		add(map[string]any{"type": "thinking", "thinking": "", "signature": ""}, ds...)
	}
	if s.Text != "" {
		var ds []map[string]any
		for _, p := range pieces(s.Text) {
			ds = append(ds, map[string]any{"type": "text_delta", "text": p})
		}
		add(map[string]any{"type": "text", "text": ""}, ds...)
	}
	for _, c := range s.Calls {
		half := len(c.Args) / 2
		add(map[string]any{"type": "tool_use", "id": c.ID, "name": c.Name, "input": map[string]any{}},
			map[string]any{"type": "input_json_delta", "partial_json": c.Args[:half]},
			map[string]any{"type": "input_json_delta", "partial_json": c.Args[half:]})
	}
	if s.Fail != "" {
		return append(out, ev("error", map[string]any{"error": map[string]any{"type": s.Fail, "message": "no luck in the middle"}}))
	}
	stop := s.Stop
	switch {
	case stop != "":
	case len(s.Calls) > 0:
		stop = "tool_use"
	default:
		stop = "end_turn"
	}
	return append(out,
		ev("message_delta", map[string]any{"delta": map[string]any{"stop_reason": stop, "stop_sequence": nil}, "usage": map[string]any{"output_tokens": 15}}),
		ev("message_stop", map[string]any{}))
}
