package toolserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/internal/agent/tool"
)

// What is taken of a server.
const (
	maxTools       = 128
	maxName        = 64       // letters of SERVER_TOOL
	maxDescription = 4 << 10  // bytes
	maxSchema      = 32 << 10 // bytes
	callTimeout    = 10 * time.Minute
)

// read returns the tools of a server.
func (s *server) read(ctx context.Context, session *mcp.ClientSession) ([]tool.Tool, error) {
	var out []tool.Tool
	for t, err := range session.Tools(ctx, nil) {
		if err != nil {
			return nil, fmt.Errorf("list tools: %w", err)
		}
		if len(out) >= maxTools {
			break
		}
		schema, ok := t.InputSchema.(map[string]any)
		if size, err := json.Marshal(t.InputSchema); !ok || err != nil || len(size) > maxSchema || schema["type"] != "object" {
			continue
		}
		if schema["properties"] == nil { // some providers want it
			schema["properties"] = map[string]any{}
		}
		name := toolName(s.name, t.Name)
		theirs := t.Name
		description := cmp.Or(t.Description, t.Title, t.Name)
		if len(description) > maxDescription {
			description = strings.ToValidUTF8(description[:maxDescription], "")
		}
		out = append(out, tool.Tool{
			Name: name, Description: description, Schema: schema,
			Run: func(ctx context.Context, c tool.Call) (tool.Result, error) { return s.call(ctx, theirs, c) },
		})
	}
	return out, nil
}

// toolName returns the name that a tool is offered by. Letters that models may not use
// become '_'.
func toolName(server, name string) string {
	full := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, server+"_"+name)
	return full[:min(len(full), maxName)]
}

// call uses a tool. The server hears of it when ctx ends before.
func (s *server) call(ctx context.Context, name string, c tool.Call) (tool.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	session, err := s.running(ctx)
	if err != nil {
		return tool.Result{}, fmt.Errorf("the MCP server %s does not run: %w", s.name, err)
	}
	got, err := session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: c.Args})
	if err != nil {
		return tool.Result{}, fmt.Errorf("the MCP server %s: %w", s.name, err)
	}
	r := s.result(got)
	if got.IsError {
		return tool.Result{}, errors.New(r.Text)
	}
	return r, nil
}

// result returns what a server answered, as a tool's result.
func (s *server) result(got *mcp.CallToolResult) tool.Result {
	var r tool.Result
	var parts []string
	for _, c := range got.Content {
		switch c := c.(type) {
		case *mcp.TextContent:
			parts = append(parts, c.Text)
		case *mcp.ImageContent:
			if p, err := s.blobs.Put(c.Data); err == nil {
				r.Images = append(r.Images, p)
				parts = append(parts, "[a picture]")
			} else {
				parts = append(parts, fmt.Sprintf("[a picture that cannot be shown: %v]", err))
			}
		case *mcp.ResourceLink:
			parts = append(parts, c.URI)
		case *mcp.EmbeddedResource:
			if c.Resource != nil {
				parts = append(parts, c.Resource.URI, c.Resource.Text)
			}
		default:
			parts = append(parts, fmt.Sprintf("[%T is not shown]", c))
		}
	}
	if len(parts) == 0 && got.StructuredContent != nil {
		if data, err := json.Marshal(got.StructuredContent); err == nil {
			parts = append(parts, string(data))
		}
	}
	r.Text = strings.Join(parts, "\n")
	return r
}
