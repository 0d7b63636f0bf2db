package mcpserver

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

var update = flag.Bool("update", false, "rewrite golden files and generated documents")

// compat is what clients out there call: tools and their parameters.
var compat = map[string]string{
	"instance_start": "command name kit workspace image secrets env expose memory_mb vcpus capabilities",
	"instance_list":  "state", "instance_info": "name", "instance_disable": "name", "instance_restart": "name",
	"instance_delete": "name", "instance_pause": "name", "instance_resume": "name",
	"instance_expose": "name port public_port protocol", "instance_unexpose": "name guest_port",
	"exec": "name command", "logs": "name tail",
	"secret_set": "key value", "secret_list": "", "secret_delete": "key", "kit_list": "",
	"tether_send": "instance text images session_id",
	"tether_read": "instance session_id after_seq limit wait_ms types",
}

// schema is as much of a JSON schema as the tests look at.
type schema struct {
	Type        any
	Description string
	Required    []string
	Properties  map[string]schema
	Default     json.RawMessage
	Enum        []string
	Items       *schema
}

func listTools(t *testing.T) []*mcp.Tool {
	t.Helper()
	res, err := newWorld(t).session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.Tools
}

func inputOf(t *testing.T, tool *mcp.Tool) (s schema) {
	t.Helper()
	b, err := json.Marshal(tool.InputSchema)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestToolsGolden holds the list of tools, which clients have in their context.
func TestToolsGolden(t *testing.T) {
	b, err := json.MarshalIndent(listTools(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "tools.golden.json"), string(b)+"\n")
}

// TestReference holds the reference page to the tools.
func TestReference(t *testing.T) {
	golden(t, filepath.Join("..", "..", "docs", "reference", "mcp.md"), reference(t, listTools(t)))
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the tools are not what %s says; run make gen and read the difference", file)
	}
}

// reference is the page of all tools.
func reference(t *testing.T, tools []*mcp.Tool) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# MCP tools\n\nPrinted from the tools of `aegis-mcp` by `make gen`. [docs/MCP.md](../MCP.md) tells how to use them.\n")
	for _, tool := range tools {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s\n", tool.Name, tool.Description, traits(tool.Annotations))
		in := inputOf(t, tool)
		if len(in.Properties) == 0 {
			continue
		}
		b.WriteString("\n| parameter | type | |\n|---|---|---|\n")
		for _, name := range order(in) {
			p := in.Properties[name]
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, typeName(p), strings.ReplaceAll(remarks(in, name, p), "|", "\\|"))
		}
	}
	return b.String()
}

// order is what is required, then the rest by name.
func order(in schema) []string {
	return slices.SortedFunc(maps.Keys(in.Properties), func(a, b string) int {
		if ra, rb := slices.Contains(in.Required, a), slices.Contains(in.Required, b); ra != rb {
			if ra {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
}

func typeName(s schema) string {
	name := fmt.Sprint(s.Type)
	if list, ok := s.Type.([]any); ok {
		var names []string
		for _, v := range list {
			if v != "null" {
				names = append(names, fmt.Sprint(v))
			}
		}
		name = strings.Join(names, " or ")
	}
	if s.Items != nil {
		name = "list of " + typeName(*s.Items)
	}
	return name
}

func remarks(in schema, name string, p schema) string {
	text := p.Description
	if slices.Contains(in.Required, name) {
		text = "**required**; " + text
	}
	if len(p.Enum) > 0 {
		text += ": `" + strings.Join(p.Enum, "`, `") + "`"
	}
	if p.Default != nil {
		text += " (default `" + string(p.Default) + "`)"
	}
	return text
}

func traits(a *mcp.ToolAnnotations) string {
	switch {
	case a.ReadOnlyHint:
		return "Changes nothing."
	case *a.DestructiveHint:
		return "Destructive."
	case a.IdempotentHint:
		return "Idempotent."
	}
	return "Each call makes something new."
}

// TestEveryToolTeaches: a model knows of a tool only what its texts say.
func TestEveryToolTeaches(t *testing.T) {
	for _, tool := range listTools(t) {
		in := inputOf(t, tool)
		if len(tool.Description) < 20 || tool.Title == "" || tool.Annotations == nil || tool.OutputSchema == nil {
			t.Errorf("%s: a title, a description, annotations or the schema of its result are missing", tool.Name)
		}
		for name, p := range in.Properties {
			if p.Description == "" || p.Type == nil {
				t.Errorf("%s: parameter %s has no description or no type", tool.Name, name)
			}
		}
	}
}

// TestCompat holds the names that clients use already.
func TestCompat(t *testing.T) {
	there := map[string]schema{}
	for _, tool := range listTools(t) {
		there[tool.Name] = inputOf(t, tool)
	}
	for name, params := range compat {
		in, ok := there[name]
		if !ok {
			t.Errorf("there is no tool %s", name)
		}
		for p := range strings.FieldsSeq(params) {
			if _, ok := in.Properties[p]; !ok {
				t.Errorf("%s has no parameter %s", name, p)
			}
		}
		for _, p := range in.Required {
			if !slices.Contains(strings.Fields(params), p) {
				t.Errorf("%s requires %s, which clients do not give", name, p)
			}
		}
	}
}

// TestInstructionsNameToolsThatExist: what they teach must be there.
func TestInstructionsNameToolsThatExist(t *testing.T) {
	var names []string
	for _, tool := range listTools(t) {
		names = append(names, tool.Name)
	}
	for word := range strings.FieldsFuncSeq(instructions, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
		known := slices.Contains(names, word) || !strings.Contains(word, "_")
		if !known && !slices.Contains([]string{"exec_id", "timeout_s", "after_seq", "ingress_seq"}, word) {
			t.Errorf("the instructions speak of %s, which is no tool", word)
		}
	}
}
