package modeltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/xfeldman/aegisvm/internal/strictjson"
)

type chatRequest struct {
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	Messages []struct {
		Role      string          `json:"role"`
		Content   json.RawMessage `json:"content"`
		CallID    string          `json:"tool_call_id"`
		ToolCalls []struct {
			ID       string `json:"id"`
			Type     string `json:"type"`
			Function struct {
				Name      string `json:"name"`
				Arguments string `json:"arguments"`
			} `json:"function"`
		} `json:"tool_calls"`
	} `json:"messages"`
	Tools []struct {
		Type     string `json:"type"`
		Function struct {
			Name        string         `json:"name"`
			Description string         `json:"description"`
			Parameters  map[string]any `json:"parameters"`
		} `json:"function"`
	} `json:"tools"`
	ToolChoice          string          `json:"tool_choice"`
	MaxTokens           int             `json:"max_tokens"`
	MaxCompletionTokens int             `json:"max_completion_tokens"`
	StreamOptions       json.RawMessage `json:"stream_options"`
}

// content returns the text and the images of a message: a string, or a list of parts.
func content(raw json.RawMessage) (text string, images []string, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil, nil
	}
	if json.Unmarshal(raw, &text) == nil {
		return text, nil, nil
	}
	var parts []struct {
		Type     string `json:"type"`
		Text     string `json:"text"`
		ImageURL struct {
			URL string `json:"url"`
		} `json:"image_url"`
	}
	if err := strictjson.Decode(raw, &parts); err != nil {
		return "", nil, err
	}
	for _, p := range parts {
		switch p.Type {
		case "text":
			if p.Text == "" {
				return "", nil, errors.New("an empty part")
			}
			text += p.Text
		case "image_url":
			images = append(images, p.ImageURL.URL)
		default:
			return "", nil, fmt.Errorf("a part of type %q", p.Type)
		}
	}
	return text, images, nil
}

func readChat(body []byte) (Request, error) {
	var in chatRequest
	if err := strictjson.Decode(body, &in); err != nil {
		return Request{}, err
	}
	out := Request{Model: in.Model, NoCalls: in.ToolChoice == "none"}
	if !in.Stream || in.Model == "" {
		return out, errors.New("no stream, or no model")
	}
	var t turns
	afterTool := false
	for i, m := range in.Messages {
		text, images, err := content(m.Content)
		if err != nil {
			return out, err
		}
		switch {
		case m.Role == "system" && i == 0:
			out.System = text
		case m.Role == "user" && afterTool && text == "" && len(images) > 0:
			// Images of results come after them: results are text in this format.
			t.messages[len(t.messages)-1].Images = t.pictures(images)
		case m.Role == "user":
			t.user(text, images)
		case m.Role == "tool":
			t.result(m.CallID, text, images)
		case m.Role == "assistant":
			var calls []Call
			for _, c := range m.ToolCalls {
				if c.Type != "function" {
					t.fail("a call of type %q", c.Type)
				}
				calls = append(calls, Call{ID: c.ID, Name: c.Function.Name, Args: c.Function.Arguments})
			}
			t.assistant(text, calls)
		default:
			t.fail("role %q", m.Role)
		}
		afterTool = m.Role == "tool"
	}
	for _, f := range in.Tools {
		if err := tool(f.Function.Name, f.Function.Description, f.Function.Parameters); err != nil {
			return out, err
		}
		out.Tools = append(out.Tools, f.Function.Name)
	}
	out.Messages = t.messages
	return out, t.end()
}

func events(api API, model string, s Step) []event {
	write := map[API]func(string, Step) []event{Chat: chatEvents, Guest: chatEvents, Responses: responsesEvents, Messages: messagesEvents}
	return write[api](model, s)
}

func chatEvents(model string, s Step) []event {
	chunk := func(delta map[string]any, finish any) event {
		return event{data: map[string]any{
			"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": model,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		}}
	}
	out := []event{chunk(map[string]any{"role": "assistant", "content": ""}, nil)}
	for _, p := range pieces(s.Reasoning) {
		out = append(out, chunk(map[string]any{"reasoning_content": p}, nil))
	}
	for _, p := range pieces(s.Text) {
		out = append(out, chunk(map[string]any{"content": p}, nil))
	}
	for i, c := range s.Calls {
		call := func(m map[string]any) event {
			m["index"] = i
			return chunk(map[string]any{"tool_calls": []any{m}}, nil)
		}
		out = append(out, call(map[string]any{"id": c.ID, "type": "function", "function": map[string]any{"name": c.Name, "arguments": ""}}))
		half := len(c.Args) / 2
		for _, p := range []string{c.Args[:half], c.Args[half:]} {
			out = append(out, call(map[string]any{"function": map[string]any{"arguments": p}}))
		}
	}
	if s.Fail != "" {
		return append(out, event{data: map[string]any{"error": map[string]any{"message": "no luck in the middle", "type": s.Fail}}})
	}
	finish := s.Stop
	switch {
	case finish != "":
	case len(s.Calls) > 0:
		finish = "tool_calls"
	default:
		finish = "stop"
	}
	return append(out, chunk(map[string]any{}, finish), event{data: "[DONE]"})
}

// joined returns texts with nothing between them.
func joined(texts []string) string { return strings.Join(texts, "") }
