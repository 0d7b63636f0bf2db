package mcpserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/launch"
)

// effect says what a tool does to the world; clients ask their users by it.
type effect int

const (
	reads    effect = iota // changes nothing; waking an instance is no change
	adds                   // makes something; twice is two
	sets                   // brings something into a state; twice is once
	destroys               // loses something for good
)

// tool is one tool. Out is what a program gets of its result; a model reads its text()
// if it has one, and else the same JSON.
type tool[In, Out any] struct {
	name, title string
	about       string // teaches a model when to use it, and how
	effect      effect
	open        bool // reaches what is beyond this host
	// refine adds to the input's schema what Go types cannot say.
	refine func(*jsonschema.Schema)
	do     func(ctx context.Context, c *call, in In) (Out, error)
}

// call is one call of a tool.
type call struct {
	progress *progress
	more     []mcp.Content // pictures, behind the text
}

// texter is a result that has a form of its own for models.
type texter interface{ text() string }

// add offers a tool.
func add[In, Out any](s *Server, t tool[In, Out]) {
	in := schemaOf[In]()
	plain(in)
	if t.refine != nil {
		t.refine(in)
	}
	no := false
	destructive := t.effect == destroys
	def := &mcp.Tool{
		Name: t.name, Title: t.title, Description: t.about, InputSchema: in, OutputSchema: schemaOf[Out](),
		Annotations: &mcp.ToolAnnotations{
			Title: t.title, ReadOnlyHint: t.effect == reads, IdempotentHint: t.effect != adds,
			DestructiveHint: &destructive, OpenWorldHint: &no,
		},
	}
	if t.open {
		def.Annotations.OpenWorldHint = nil // true
	}
	mcp.AddTool(s.mcp, def, func(ctx context.Context, req *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
		c := &call{progress: newProgress(ctx, req)}
		out, err := retried(ctx, s, c, t, in)
		c.progress.end()
		if err != nil {
			return failed(err, c.more), nil, nil
		}
		res := &mcp.CallToolResult{}
		if x, ok := any(out).(texter); ok {
			res.Content = []mcp.Content{&mcp.TextContent{Text: x.text()}}
		} else if len(c.more) > 0 {
			b, err := json.Marshal(out)
			if err != nil {
				return nil, nil, err
			}
			res.Content = []mcp.Content{&mcp.TextContent{Text: string(b)}}
		}
		if res.Content != nil {
			res.Content = append(res.Content, c.more...)
		}
		return res, out, nil
	})
}

// retried makes a call, and once more after the daemon was started if none ran. Nothing
// has happened then: the call did not even reach it.
func retried[In, Out any](ctx context.Context, s *Server, c *call, t tool[In, Out], in In) (Out, error) {
	out, err := t.do(ctx, c, in)
	if !errors.Is(err, client.ErrNotRunning) || s.conf.Launch == nil {
		return out, err
	}
	c.progress.say("starting aegisd")
	if err := s.ensure(ctx); err != nil {
		return out, err
	}
	return t.do(ctx, c, in)
}

// errorMeta is the key under which a result that is an error has an api.Error, for
// programs. Not structuredContent: that has the form that the tool's schema tells.
const errorMeta = "aegisvm/error"

// nextSteps says what a model can do about errors that have no hint, or one for people.
var nextSteps = map[fault.Kind]string{
	fault.NotFound:    "list what there is: instance_list, snapshot_list, image_list, kit_list or secret_list",
	fault.Unavailable: "try again; if it stays so, ask the user to run: aegis doctor",
	fault.Exhausted:   "stop or delete instances that are not needed (instance_list), or ask for less memory or disk",
	fault.Timeout:     "look at logs and instance_info, then try again",
	fault.Internal:    "ask the user to look at data/aegisd.log in AEGIS_HOME",
}

// culprits names whose fault an error is, where that is not plain from the message.
var culprits = map[fault.Blame]string{
	fault.Host:   "the user's machine",
	fault.Driver: "the virtual machine monitor",
	fault.Image:  "the image",
	fault.Guest:  "the system in the VM",
}

// failed is the result of a call that failed.
func failed(err error, more []mcp.Content) *mcp.CallToolResult {
	return &mcp.CallToolResult{
		IsError: true,
		Content: append([]mcp.Content{&mcp.TextContent{Text: describe(err)}}, more...),
		Meta:    mcp.Meta{errorMeta: api.ErrorOf(err)},
	}
}

// describe is what a model reads of an error.
func describe(err error) string {
	var b strings.Builder
	b.WriteString(err.Error())
	if d, ok := errors.AsType[*launch.Error](err); ok {
		for _, line := range d.Log {
			fmt.Fprintf(&b, "\n  | %s", line)
		}
	}
	if who, ok := culprits[fault.BlameOf(err)]; ok {
		fmt.Fprintf(&b, "\nat fault: %s", who)
	}
	steps := []string{fault.HintOf(err)}
	if next := nextSteps[fault.KindOf(err)]; steps[0] == "" || fault.KindOf(err) == fault.NotFound {
		steps = append(steps, next)
	}
	steps = slices.DeleteFunc(steps, func(s string) bool { return s == "" })
	if len(steps) > 0 {
		fmt.Fprintf(&b, "\nnext: %s", strings.Join(steps, "; or "))
	}
	return b.String()
}

// schemaOf returns the schema of a type.
func schemaOf[T any]() *jsonschema.Schema {
	s, err := jsonschema.For[T](&jsonschema.ForOptions{TypeSchemas: ownSchemas})
	if err != nil {
		panic(fmt.Sprintf("mcpserver: %v", err)) // of a type of this package
	}
	return s
}

// plain takes null out of the types of lists and pointers: what is not given is left out,
// and not all clients know schemas with more than one type.
func plain(s *jsonschema.Schema) {
	s.Types = slices.DeleteFunc(s.Types, func(t string) bool { return t == "null" })
	if len(s.Types) == 1 {
		s.Type, s.Types = s.Types[0], nil
	}
	for _, p := range s.Properties {
		plain(p)
	}
	if s.Items != nil {
		plain(s.Items)
	}
}

// enum limits a string to some values.
func enum(s *jsonschema.Schema, property string, values ...any) {
	s.Properties[property].Enum = values
}

// preset sets the default of a property.
func preset(s *jsonschema.Schema, property, value string) {
	s.Properties[property].Default = json.RawMessage(value)
}
