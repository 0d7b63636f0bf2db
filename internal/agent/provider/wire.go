package provider

import (
	"encoding/json"
	"sync"
)

// wire keeps what tools are in a protocol from one request to the next. They are most of a
// request, and the same each time; a machine that has just woken, whose user waits for the
// first word, has better to do than to encode them anew. The zero value is ready.
type wire[T any] struct {
	mu     sync.Mutex
	tools  []Tool
	params []T
}

// of returns tools as one makes them. Tools that are the same slice as before are those of
// before.
func (w *wire[T]) of(tools []Tool, one func(Tool) T) []T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(tools) == 0 {
		return nil
	}
	if len(tools) != len(w.tools) || &tools[0] != &w.tools[0] {
		w.tools, w.params = tools, make([]T, 0, len(tools))
		for _, t := range tools {
			w.params = append(w.params, one(t))
		}
	}
	return w.params
}

// encoded returns v as it is on the wire, as raw makes it of its JSON. What cannot be encoded
// is for the SDK to complain of.
func encoded[T any](v T, raw func(any) T) T {
	data, err := json.Marshal(v)
	if err != nil {
		return v
	}
	return raw(json.RawMessage(data))
}
