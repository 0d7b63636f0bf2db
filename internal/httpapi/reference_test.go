package httpapi

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestReference holds the page of the API to its document.
func TestReference(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "reference", "api.md")
	got := reference(document(t), (&Server{}).routes())
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
		t.Errorf("the API is not what %s says; run make gen and read the difference", file)
	}
}

// preface is what every client has to know.
const preface = `# The HTTP API

Printed from the table of routes by ` + "`make gen`; [openapi.json](openapi.json)" + ` is the same for programs.

HTTP/1.1 on the unix socket ` + "`aegisd.sock` in AEGIS_HOME" + `, 0600, for the user who runs the daemon only. Bodies are JSON unless said otherwise;
"lines" are one JSON object a line (NDJSON), flushed one by one. ` + "`{id}`" + ` is an id or a handle. Times are RFC 3339.

An error has a status of its own and the body ` + "`{\"error\",\"code\",\"hint\"}`" + `. An *attach stream* is asked for with the header
` + "`Upgrade: aegis-attach`" + `: frames of a type (1 byte), a length (4 bytes, big-endian) and a payload; types are 0 stdin, 1 stdout, 2 stderr, 3 size of the
terminal, 4 signal, 5 exit status, 6 end of stdin.

In Go the package [client](../../client) speaks it.

`

// reference is the page: the routes, and then the objects that they take and give.
func reference(doc *openapi3.T, routes []route) string {
	var b strings.Builder
	b.WriteString(preface + "## Calls\n\n| call | takes | gives | |\n|---|---|---|---|\n")
	for _, r := range routes {
		op := doc.Paths.Value(r.path).GetOperation(r.method)
		call := r.method + " " + r.path
		if len(r.query) > 0 {
			call += "?" + strings.Join(r.query, "&")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", call, takes(op), gives(op), r.does)
	}
	b.WriteString("\n## Objects\n")
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		s := doc.Components.Schemas[name].Value
		if len(s.Properties) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n| field | type |\n|---|---|\n", name)
		for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
			fmt.Fprintf(&b, "| `%s` | %s |\n", field, typeOf(s.Properties[field]))
		}
	}
	return b.String()
}

func takes(op *openapi3.Operation) string {
	if op.RequestBody == nil {
		return ""
	}
	return content(op.RequestBody.Value.Content)
}

func gives(op *openapi3.Operation) string {
	for _, status := range slices.Sorted(maps.Keys(op.Responses.Map())) {
		switch status {
		case "default":
		case "101":
			return "an attach stream"
		default:
			return content(op.Responses.Value(status).Value.Content)
		}
	}
	return "an error"
}

// content says what a body is.
func content(c openapi3.Content) string {
	for media, body := range c {
		switch media {
		case "application/json":
			return typeOf(body.Schema)
		case "application/x-ndjson":
			return "lines of " + typeOf(body.Schema)
		}
		return media
	}
	return ""
}

// typeOf names a type, and links to it where it is an object of its own.
func typeOf(s *openapi3.SchemaRef) string {
	if _, name, ok := strings.Cut(s.Ref, "#/components/schemas/"); ok {
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	}
	switch v := s.Value; {
	case v.Type.Is("array"):
		return "list of " + typeOf(v.Items)
	case v.Type.Is("object") && v.AdditionalProperties.Schema != nil:
		return "map to " + typeOf(v.AdditionalProperties.Schema)
	case v.Format != "" && v.Format != "int64":
		return v.Format
	case v.Type == nil || len(*v.Type) == 0:
		return "any"
	default:
		return strings.Join(*v.Type, ", ")
	}
}
