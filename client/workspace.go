package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// WorkspaceTree lists the folder at path in an instance's workspace, sorted by name; ""
// is the workspace itself. Neither this nor what follows wakes the instance.
func (c *Client) WorkspaceTree(ctx context.Context, ref, path string) (out []api.WorkspaceEntry, err error) {
	return out, c.call(ctx, http.MethodGet, inWorkspace(ref, "/workspace/tree", path), &out)
}

// ReadWorkspace returns the contents of the file at path in an instance's workspace.
// One over api.MaxWorkspaceFile is fault.TooLarge; CopyFrom has no limit.
func (c *Client) ReadWorkspace(ctx context.Context, ref, path string) ([]byte, error) {
	return c.readFile(ctx, inWorkspace(ref, "/workspace", path), api.MaxWorkspaceFile)
}

// readFile returns the bytes of a file of at most that many.
func (c *Client) readFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, failure(resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, explain(ctx, fmt.Errorf("read a file: %w", err))
	}
	return b, nil
}

// WriteWorkspace replaces the contents of the file at path in an instance's workspace,
// or makes it, and the folders that it is in.
func (c *Client) WriteWorkspace(ctx context.Context, ref, path string, data []byte) (out api.Written, err error) {
	return out, c.sendFile(ctx, inWorkspace(ref, "/workspace", path), data, &out)
}

// PutBlob keeps a picture (PNG, JPEG, GIF or WebP) in an instance's workspace.
func (c *Client) PutBlob(ctx context.Context, ref string, picture []byte) (out api.Blob, err error) {
	return out, c.sendFile(ctx, at(ref, "/blob"), picture, &out)
}

func inWorkspace(ref, what, path string) string {
	return at(ref, what+"?"+url.Values{"path": {path}}.Encode())
}

// sendFile posts the bytes of a file, and decodes the answer into out.
func (c *Client) sendFile(ctx context.Context, path string, data []byte, out any) error {
	if len(data) > api.MaxWorkspaceFile { // or the answer might be lost while it is being sent
		return fault.New(fault.TooLarge, "%d bytes are to be written, at most %d can be", len(data), api.MaxWorkspaceFile).
			WithHint("use: aegis cp")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://aegisd"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", api.OctetType)
	resp, err := c.http.Do(req)
	if err != nil {
		return explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode >= http.StatusMultipleChoices {
		return failure(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return explain(ctx, fmt.Errorf("read the answer to a file: %w", err))
	}
	return nil
}
