package modeltest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
)

// turns checks the order of a conversation while it is read.
type turns struct {
	messages []history.Message
	open     []string // calls without results
	seen     map[string]bool
	err      error
}

func (t *turns) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("message %d: %s", len(t.messages), fmt.Sprintf(format, args...))
	}
}

func (t *turns) last() history.Role {
	if len(t.messages) == 0 {
		return ""
	}
	return t.messages[len(t.messages)-1].Role
}

func (t *turns) user(text string, images []string) {
	switch {
	case len(t.open) > 0:
		t.fail("a user's message, but %v have no results", t.open)
	case t.last() == history.User:
		t.fail("two messages of the user in a row")
	case strings.TrimSpace(text) == "" && len(images) == 0:
		t.fail("an empty message of the user")
	}
	t.messages = append(t.messages, history.Message{Role: history.User, Text: text, Images: t.pictures(images)})
}

func (t *turns) assistant(text string, calls []Call) {
	switch {
	case len(t.open) > 0:
		t.fail("an answer, but %v have no results", t.open)
	case t.last() == "":
		t.fail("the assistant begins")
	case t.last() == history.Assistant:
		t.fail("two answers in a row")
	case strings.TrimSpace(text) == "" && len(calls) == 0:
		t.fail("an empty answer")
	}
	m := history.Message{Role: history.Assistant, Text: text}
	t.seen = map[string]bool{}
	for _, c := range calls {
		if c.ID == "" || t.seen[c.ID] {
			t.fail("the id %q of a call is empty or used twice", c.ID)
		}
		if !toolName.MatchString(c.Name) {
			t.fail("%q is no name of a tool", c.Name)
		}
		if err := object(c.Args); err != nil {
			t.fail("%v", err)
		}
		t.seen[c.ID] = true
		t.open = append(t.open, c.ID)
		m.Calls = append(m.Calls, history.Call{ID: c.ID, Name: c.Name, Args: json.RawMessage(c.Args)})
	}
	t.messages = append(t.messages, m)
}

func (t *turns) result(id, text string, images []string) {
	switch {
	case len(t.open) == 0 || t.open[0] != id:
		t.fail("a result of %q, expected of %v", id, t.open)
	case strings.TrimSpace(text) == "" && len(images) == 0:
		t.fail("an empty result of %q", id)
	default:
		t.open = t.open[1:]
	}
	t.messages = append(t.messages, history.Message{Role: history.Tool, CallID: id, Text: text, Images: t.pictures(images)})
}

func (t *turns) end() error {
	if len(t.open) > 0 {
		t.fail("the end, but %v have no results", t.open)
	}
	if t.last() != history.User && t.last() != history.Tool {
		t.fail("there is nothing to answer after %q", t.last())
	}
	return t.err
}

// pictures checks images, which come as data in base64.
func (t *turns) pictures(images []string) []api.Picture {
	var out []api.Picture
	for _, i := range images {
		data, err := base64.StdEncoding.DecodeString(i[strings.LastIndexByte(i, ',')+1:])
		if err != nil || len(data) == 0 {
			t.fail("an image that is none")
		}
		out = append(out, api.Picture{Blob: strconv.Itoa(len(data))})
	}
	return out
}

var toolName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// tool checks what is said of a tool.
func tool(name, description string, schema map[string]any) error {
	if !toolName.MatchString(name) || description == "" || schema["type"] != "object" || schema["properties"] == nil {
		return fmt.Errorf("the tool %q has a bad name, no description, or a schema that is no object's", name)
	}
	return nil
}
