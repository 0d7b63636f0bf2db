package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3gen"

	"github.com/xfeldman/aegisvm/api"
)

var update = flag.Bool("update", false, "rewrite golden files")

var pathParameter = regexp.MustCompile(`{(\w+)}`)

// document makes the OpenAPI document of the table of routes.
func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc := &openapi3.T{
		OpenAPI:    "3.0.3",
		Info:       &openapi3.Info{Title: "AegisVM", Version: "1", Description: "HTTP on the unix socket $AEGIS_HOME/aegisd.sock. Errors have the body Error."},
		Components: &openapi3.Components{Schemas: openapi3.Schemas{}},
		Paths:      openapi3.NewPaths(),
	}
	schema := func(v any) *openapi3.SchemaRef {
		ref, err := openapi3gen.NewSchemaRefForValue(v, doc.Components.Schemas,
			openapi3gen.CreateComponentSchemas(openapi3gen.ExportComponentSchemasOptions{ExportComponentSchemas: true, ExportTopLevelSchema: true}))
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	failure := openapi3.NewResponse().WithDescription("What went wrong").WithJSONSchemaRef(schema(api.Error{}))
	for _, r := range (&Server{}).routes() {
		op := openapi3.NewOperation()
		op.Summary = r.does
		op.Responses = openapi3.NewResponses(openapi3.WithName("default", failure))
		for _, name := range pathParameter.FindAllStringSubmatch(r.path, -1) {
			op.AddParameter(openapi3.NewPathParameter(name[1]).WithSchema(openapi3.NewStringSchema()))
		}
		for _, q := range r.query {
			op.AddParameter(openapi3.NewQueryParameter(q).WithSchema(openapi3.NewStringSchema()))
		}
		if content := binary(r.in); content != nil {
			op.RequestBody = &openapi3.RequestBodyRef{Value: openapi3.NewRequestBody().WithRequired(true).WithContent(content)}
		} else if r.in != nil {
			op.RequestBody = &openapi3.RequestBodyRef{Value: openapi3.NewRequestBody().WithRequired(true).WithJSONSchemaRef(schema(r.in))}
		}
		answer := openapi3.NewResponse().WithDescription(r.does)
		status := http.StatusOK
		switch {
		case r.out == nil:
			status = http.StatusSwitchingProtocols
			answer.WithDescription("An attach stream")
		case binary(r.out) != nil:
			answer.WithContent(binary(r.out))
		case r.out == text(""):
			answer.WithContent(openapi3.NewContentWithSchema(openapi3.NewStringSchema(), []string{"text/plain"}))
		case r.lines:
			answer.WithContent(openapi3.NewContentWithSchemaRef(schema(r.out), []string{"application/x-ndjson"}))
		default:
			answer.WithJSONSchemaRef(schema(r.out))
		}
		if r.out != (refusal{}) {
			op.AddResponse(status, answer)
		}
		doc.AddOperation(r.path, r.method, op)
	}
	return doc
}

// binary describes bodies that are no JSON; nil for others.
func binary(body any) openapi3.Content {
	switch body {
	case tarball(""):
		return openapi3.NewContentWithSchema(openapi3.NewStringSchema().WithFormat("binary"), []string{api.TarType})
	case octets(""):
		return openapi3.NewContentWithSchema(openapi3.NewStringSchema().WithFormat("binary"), []string{api.OctetType})
	}
	return nil
}

// TestOpenAPI holds the document in the repository to the server.
func TestOpenAPI(t *testing.T) {
	doc := document(t)
	raw, err := doc.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	file := filepath.Join("..", "..", "docs", "reference", "openapi.json")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the API is not what %s says; run the test with -update and read the difference", file)
	}
	loaded, err := openapi3.NewLoader().LoadFromData(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Validate(t.Context()); err != nil {
		t.Errorf("the document is not OpenAPI: %v", err)
	}
}
