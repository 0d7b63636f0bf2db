package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/provider"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// Result is what a tool hands back to the model.
type Result struct {
	Text   string
	Images []api.Picture
}

// Tool is one entry of the table.
type Tool struct {
	Name        string
	Description string
	Schema      map[string]any
	// Run does it. Whatever it starts ends with ctx, or has the call's mark: see Call.
	Run func(ctx context.Context, c Call) (Result, error)
}

// Call is one use of a tool.
type Call struct {
	Args json.RawMessage // an object
	// Mark is what processes of this call carry: see package process.
	Mark string
	// Session is the conversation that the call is made in.
	Session api.Session
	// Reply takes pictures that are to be part of the answer to the user.
	Reply func(api.Picture)
}

// maxText bounds the text of a result, in bytes.
const maxText = 32 << 10

// Set is the tools of a run.
type Set struct {
	tools   []Tool
	offers  []provider.Tool
	secrets []secret.Value
}

// NewSet makes a set of tools. Of two with one name the first counts. The secrets are
// taken out of all results.
func NewSet(tools []Tool, secrets ...secret.Value) *Set {
	s := &Set{secrets: secrets}
	for _, t := range tools {
		if _, ok := s.find(t.Name); !ok {
			s.tools = append(s.tools, t)
			s.offers = append(s.offers, provider.Tool{Name: t.Name, Description: t.Description, Schema: t.Schema})
		}
	}
	return s
}

func (s *Set) find(name string) (Tool, bool) {
	i := slices.IndexFunc(s.tools, func(t Tool) bool { return t.Name == name })
	if i < 0 {
		return Tool{}, false
	}
	return s.tools[i], true
}

// Offers returns what a model is told: the same slice each time, so that it has to be encoded
// once.
func (s *Set) Offers() []provider.Tool { return s.offers }

// Names returns the names of the tools.
func (s *Set) Names() []string {
	var out []string
	for _, t := range s.tools {
		out = append(out, t.Name)
	}
	return out
}

// Run uses a tool. A panic in it is an error like others.
func (s *Set) Run(ctx context.Context, name string, c Call) (r Result, err error) {
	t, ok := s.find(name)
	if !ok {
		return Result{}, fmt.Errorf("there is no tool %q; there are: %s", name, strings.Join(s.Names(), ", "))
	}
	defer func() {
		if p := recover(); p != nil {
			r, err = Result{}, fmt.Errorf("the tool %s has a defect: %v", name, p)
		}
		r.Text = s.fit(r.Text)
		if err != nil {
			err = errors.New(s.fit(err.Error()))
		}
	}()
	return t.Run(ctx, c)
}

// fit makes text fit to be sent: valid, bounded, and without secrets.
func (s *Set) fit(text string) string {
	for _, v := range s.secrets {
		if v.Len() >= 8 { // shorter ones would be found in everything
			text = strings.ReplaceAll(text, v.Reveal(), "[secret]")
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(clip(text, maxText), "\uFFFD"), "\x00", "\uFFFD")
}

// clip returns the beginning and the end of a text that is longer than limit bytes.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	head, tail := text[:limit*2/3], text[len(text)-limit/4:]
	for len(head) > 0 && !utf8.RuneStart(text[len(head)]) {
		head = head[:len(head)-1]
	}
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return fmt.Sprintf("%s\n[... %d bytes left out ...]\n%s", head, len(text)-len(head)-len(tail), tail)
}

// read decodes the arguments of a call. A key that is not in the schema is an error that
// names those that are: models mend their calls then.
func read[T any](c Call) (T, error) {
	var args T
	dec := json.NewDecoder(bytes.NewReader(c.Args))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&args); err != nil && !errors.Is(err, io.EOF) {
		return args, fmt.Errorf("the arguments are wrong: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return args, nil
}

// object returns a schema. Its properties come as pairs of a name and what field returns;
// a name that ends in '*' is required.
func object(pairs ...any) map[string]any {
	properties, required := map[string]any{}, []string{}
	for pair := range slices.Chunk(pairs, 2) {
		name, must := strings.CutSuffix(pair[0].(string), "*")
		properties[name] = pair[1]
		if must {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

func field(kind, description string) map[string]any {
	return map[string]any{"type": kind, "description": description}
}

func text(format string, args ...any) Result { return Result{Text: fmt.Sprintf(format, args...)} }
