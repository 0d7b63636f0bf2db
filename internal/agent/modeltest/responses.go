package modeltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/xfeldman/aegisvm/internal/strictjson"
)

type responsesRequest struct {
	Model        string            `json:"model"`
	Stream       bool              `json:"stream"`
	Store        *bool             `json:"store"`
	Include      []string          `json:"include"`
	Instructions string            `json:"instructions"`
	Input        []json.RawMessage `json:"input"`
	Tools        []struct {
		Type        string         `json:"type"`
		Name        string         `json:"name"`
		Description string         `json:"description"`
		Strict      bool           `json:"strict"`
		Parameters  map[string]any `json:"parameters"`
	} `json:"tools"`
	ToolChoice      string `json:"tool_choice"`
	MaxOutputTokens int    `json:"max_output_tokens"`
}

type responsesItem struct {
	Type      string          `json:"type"`
	ID        string          `json:"id"`
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Arguments string          `json:"arguments"`
	Output    json.RawMessage `json:"output"`
	Summary   json.RawMessage `json:"summary"`
	Encrypted string          `json:"encrypted_content"`
	Status    string          `json:"status"`
}

func responsesContent(raw json.RawMessage) (text string, images []string, err error) {
	if json.Unmarshal(raw, &text) == nil {
		return text, nil, nil
	}
	var parts []struct {
		Type     string `json:"type"`
		Text     string `json:"text"`
		ImageURL string `json:"image_url"`
		Detail   string `json:"detail"`
	}
	if err := strictjson.Decode(raw, &parts); err != nil {
		return "", nil, err
	}
	for _, p := range parts {
		switch {
		case p.Type == "input_text" && p.Text != "":
			text += p.Text
		case p.Type == "input_image":
			images = append(images, p.ImageURL)
		default:
			return "", nil, fmt.Errorf("a part of type %q, or an empty one", p.Type)
		}
	}
	return text, images, nil
}

// itemReader makes messages of items. An answer is what stands between others: reasoning,
// text, and calls.
type itemReader struct {
	turns   *turns
	text    string
	calls   []Call
	thought bool
}

func (r *itemReader) flush() {
	if r.text != "" || len(r.calls) > 0 {
		r.turns.assistant(r.text, r.calls)
	} else if r.thought {
		r.turns.fail("reasoning without what followed it")
	}
	r.text, r.calls, r.thought = "", nil, false
}

func (r *itemReader) read(raw json.RawMessage) error {
	var item responsesItem
	if err := strictjson.Decode(raw, &item); err != nil {
		return err
	}
	said := item.Content
	if item.Type == "function_call_output" {
		said = item.Output
	}
	var text string
	var images []string
	if len(said) > 0 {
		var err error
		if text, images, err = responsesContent(said); err != nil {
			return err
		}
	}
	switch {
	case item.Type == "reasoning":
		if item.Encrypted == "" || item.ID == "" {
			r.turns.fail("reasoning without its content")
		}
		r.thought = true
	case item.Type == "function_call":
		r.calls = append(r.calls, Call{ID: item.CallID, Name: item.Name, Args: item.Arguments})
	case item.Type == "function_call_output":
		r.flush()
		r.turns.result(item.CallID, text, images)
	case item.Role == "assistant":
		if r.text != "" {
			r.turns.fail("two answers in a row")
		}
		r.text = text
	case item.Role == "user":
		r.flush()
		r.turns.user(text, images)
	default:
		r.turns.fail("an item of type %q", item.Type)
	}
	return nil
}

func readResponses(body []byte) (Request, error) {
	var in responsesRequest
	if err := strictjson.Decode(body, &in); err != nil {
		return Request{}, err
	}
	out := Request{Model: in.Model, System: in.Instructions, NoCalls: in.ToolChoice == "none"}
	if !in.Stream || in.Model == "" || in.Store == nil || *in.Store {
		return out, errors.New("no stream, no model, or it is to be stored")
	}
	var t turns
	items := itemReader{turns: &t}
	for _, raw := range in.Input {
		if err := items.read(raw); err != nil {
			return out, err
		}
	}
	items.flush()
	for _, f := range in.Tools {
		if err := tool(f.Name, f.Description, f.Parameters); err != nil {
			return out, err
		}
		out.Tools = append(out.Tools, f.Name)
	}
	out.Messages = t.messages
	return out, t.end()
}

func responsesEvents(model string, s Step) []event {
	n := 0
	ev := func(kind string, fields map[string]any) event {
		fields["type"], fields["sequence_number"] = kind, n
		n++
		return event{name: kind, data: fields}
	}
	response := func(status string, more map[string]any) map[string]any {
		r := map[string]any{
			"id": "resp_1", "object": "response", "created_at": 1700000000, "model": model, "status": status, "error": nil, "output": []any{},
			"usage": map[string]any{"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
		}
		maps.Copy(r, more)
		return map[string]any{"response": r}
	}
	out := []event{ev("response.created", response("in_progress", nil))}
	index := 0
	if s.Reasoning != "" || len(s.Calls) > 0 {
		item := map[string]any{"id": "rs_1", "type": "reasoning", "summary": []any{}, "encrypted_content": "gAAAA"}
		out = append(out, ev("response.output_item.added", map[string]any{"output_index": index, "item": item}))
		for _, p := range pieces(s.Reasoning) {
			out = append(out, ev("response.reasoning_summary_text.delta", map[string]any{"item_id": "rs_1", "output_index": index, "summary_index": 0, "delta": p}))
		}
		out = append(out, ev("response.output_item.done", map[string]any{"output_index": index, "item": item}))
		index++
	}
	if s.Text != "" {
		for _, p := range pieces(s.Text) {
			out = append(out, ev("response.output_text.delta", map[string]any{"item_id": "msg_1", "output_index": index, "content_index": 0, "delta": p}))
		}
		out = append(out, ev("response.output_item.done", map[string]any{"output_index": index, "item": map[string]any{
			"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
			"content": []any{map[string]any{"type": "output_text", "text": s.Text, "annotations": []any{}}},
		}}))
		index++
	}
	for _, c := range s.Calls {
		item := map[string]any{"id": "fc_" + c.ID, "type": "function_call", "call_id": c.ID, "name": c.Name, "arguments": c.Args, "status": "completed"}
		out = append(out,
			ev("response.function_call_arguments.delta", map[string]any{"item_id": "fc_" + c.ID, "output_index": index, "delta": c.Args}),
			ev("response.output_item.done", map[string]any{"output_index": index, "item": item}))
		index++
	}
	switch {
	case s.Fail != "":
		return append(out, ev("response.failed", response("failed", map[string]any{"error": map[string]any{"code": s.Fail, "message": "no luck in the middle"}})))
	case s.Stop != "":
		return append(out, ev("response.incomplete", response("incomplete", map[string]any{"incomplete_details": map[string]any{"reason": s.Stop}})))
	}
	return append(out, ev("response.completed", response("completed", nil)))
}
