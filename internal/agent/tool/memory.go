package tool

import (
	"context"
	"fmt"
	"strings"

	"github.com/xfeldman/aegisvm/internal/agent/memory"
)

// Memory returns the tools that keep notes over sessions.
func Memory(store *memory.Store) []Tool {
	m := &notes{store}
	return []Tool{
		{
			Name:        "memory_store",
			Description: "Remember something in all sessions to come: what the user prefers, how things are set up, decisions. Short and self-contained.",
			Schema: object("text*", field("string", "what to remember"),
				"tags", map[string]any{"type": "array", "items": map[string]any{"type": "string"}, "description": "words to find it by"}),
			Run: m.keep,
		},
		{
			Name:        "memory_search",
			Description: "Search what you remember. Without a query: the newest.",
			Schema:      object("query", field("string", "words"), "limit", field("integer", "default 20")),
			Run:         m.search,
		},
		{
			Name:        "memory_delete",
			Description: "Forget something that is not true or not wanted any more.",
			Schema:      object("id*", field("string", "the id of the note")),
			Run:         m.forget,
		},
	}
}

type notes struct{ store *memory.Store }

func (m *notes) keep(_ context.Context, c Call) (Result, error) {
	args, err := read[struct {
		Text string   `json:"text"`
		Tags []string `json:"tags"`
	}](c)
	if err != nil {
		return Result{}, err
	}
	n, err := m.store.Add(args.Text, args.Tags)
	if err != nil {
		return Result{}, err
	}
	return text("remembered as %s", n.ID), nil
}

func (m *notes) search(_ context.Context, c Call) (Result, error) {
	args, err := read[struct {
		Query string `json:"query"`
		Limit int    `json:"limit"`
	}](c)
	if err != nil {
		return Result{}, err
	}
	limit := args.Limit
	if limit <= 0 {
		limit = 20
	}
	found, err := m.store.Search(args.Query, min(limit, 100))
	if err != nil {
		return Result{}, err
	}
	if len(found) == 0 {
		return text("nothing found"), nil
	}
	var b strings.Builder
	for _, n := range found {
		fmt.Fprintf(&b, "%s (%s)", n.ID, n.Created.Format("2006-01-02"))
		if len(n.Tags) > 0 {
			fmt.Fprintf(&b, " [%s]", strings.Join(n.Tags, ", "))
		}
		fmt.Fprintf(&b, ": %s\n", n.Text)
	}
	return Result{Text: b.String()}, nil
}

func (m *notes) forget(_ context.Context, c Call) (Result, error) {
	args, err := read[struct {
		ID string `json:"id"`
	}](c)
	if err != nil {
		return Result{}, err
	}
	if err := m.store.Delete(args.ID); err != nil {
		return Result{}, err
	}
	return text("forgotten"), nil
}
