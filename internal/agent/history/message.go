package history

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
)

// Role says whose a Message is.
type Role string

// The roles.
const (
	User      Role = "user"
	Assistant Role = "assistant"
	Tool      Role = "tool" // the result of one call
)

// Message is what one side said. It is stored as it stands: its field names are the
// format of session files.
type Message struct {
	Role   Role          `json:"role"`
	Text   string        `json:"text,omitempty"`
	Images []api.Picture `json:"images,omitempty"` // of a user or a tool
	Calls  []Call        `json:"calls,omitempty"`  // of the assistant
	Opaque []Opaque      `json:"opaque,omitempty"` // of the assistant
	// CallID is the call that a tool's message is the result of.
	CallID string `json:"call_id,omitempty"`
	Failed bool   `json:"failed,omitempty"` // the tool could not do it; Text says why
}

// Call is a tool that the assistant wants to be run.
type Call struct {
	ID   string          `json:"id"` // unique within its message
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"` // a JSON object
	// Broken is what the model sent instead of an object. Args is empty then.
	Broken string `json:"broken,omitempty"`
}

// Opaque is a part of an answer that means something to its model only, such as signed
// or encrypted reasoning. It is sent back as it came, to that model and no other.
type Opaque struct {
	Model string          `json:"model"`
	Raw   json.RawMessage `json:"raw"`
}

// imageChars is what an image counts for in a context, about as much as models charge.
const imageChars = 6000

// Chars is how much of a context the message takes, in characters.
func (m Message) Chars() int {
	n := utf8.RuneCountInString(m.Text) + len(m.Images)*imageChars
	for _, c := range m.Calls {
		n += len(c.Name) + len(c.Args)
	}
	for _, o := range m.Opaque {
		n += len(o.Raw)
	}
	return n
}

// empty reports whether a provider would refuse the message for having nothing in it.
func (m Message) empty() bool {
	return strings.TrimSpace(m.Text) == "" && len(m.Images) == 0 && len(m.Calls) == 0
}

// object returns args if it is a JSON object, and an empty object otherwise.
func object(args json.RawMessage) json.RawMessage {
	if t := strings.TrimSpace(string(args)); strings.HasPrefix(t, "{") && json.Valid(args) {
		return args
	}
	return json.RawMessage("{}")
}

// NewCall makes a Call of what a model sent. No arguments are an empty object; what is no
// object is kept in Broken.
func NewCall(id, name, args string) Call {
	c := Call{ID: id, Name: name, Args: object(json.RawMessage(args))}
	if string(c.Args) == "{}" && strings.TrimSpace(args) != "" && strings.TrimSpace(args) != "{}" {
		var any map[string]json.RawMessage
		if json.Unmarshal([]byte(args), &any) != nil {
			c.Broken = args
		}
	}
	return c
}
