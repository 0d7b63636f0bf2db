package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/xfeldman/aegisvm/api"
)

// Download is a tar stream of files of an instance.
type Download struct {
	ctx  context.Context //nolint:containedctx // of the request that it is the answer to
	resp *http.Response
	end  api.Copied
	err  error
}

// CopyFrom reads the file or tree at path in an instance, which it wakes and holds
// awake. The archive's first entry is the root, named by the last part of path; a path
// that ends in "/." gives what is in a folder. It returns when the files have been
// found.
func (c *Client) CopyFrom(ctx context.Context, ref, path string) (*Download, error) {
	req, err := request(ctx, http.MethodGet, at(ref, "/files?"+url.Values{"path": {path}}.Encode()), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("TE", "trailers")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, explain(ctx, err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		err := failure(resp)
		_ = resp.Body.Close() // only read
		return nil, err
	}
	return &Download{ctx: ctx, resp: resp}, nil
}

// Read implements io.Reader. It returns io.EOF only when everything has come.
func (d *Download) Read(b []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.resp.Body.Read(b)
	switch {
	case err == io.EOF: // in the chain of another error it is no end
		d.err = d.finish()
	case err != nil:
		d.err = cutOff(d.ctx, err)
	}
	return n, d.err
}

// finish returns how the copy ended.
func (d *Download) finish() error {
	if err := json.Unmarshal([]byte(d.resp.Trailer.Get(api.CopyTrailer)), &d.end); err != nil {
		return fmt.Errorf("read the end of the copy: %w", err)
	}
	if d.end.Error != nil {
		return d.end.Error.Fault()
	}
	return io.EOF
}

// Notes returns lines about what was left out, after the end.
func (d *Download) Notes() []string { return d.end.Notes }

// Close ends the copy.
func (d *Download) Close() error { return d.resp.Body.Close() }

// CopyOptions say how a tar stream is unpacked in an instance.
type CopyOptions struct {
	Owners  bool // keep numeric owners; else all belongs to root
	Extract bool // any archive, into the folder path; else one with a root, as CopyFrom gives it
}

// CopyTo unpacks a tar stream at path in an instance, which it wakes and holds awake,
// and returns lines about what was left out. An error of the stream's Read gives the
// copy up, and is returned. When CopyTo returns with another error a Read may still be
// in progress; what it returns then is lost.
func (c *Client) CopyTo(ctx context.Context, ref, path string, opts CopyOptions, archive io.Reader) ([]string, error) {
	q := url.Values{"path": {path}, "owners": {strconv.FormatBool(opts.Owners)}, "extract": {strconv.FormatBool(opts.Extract)}}
	var done api.Copied
	err := c.upload(ctx, http.MethodPut, at(ref, "/files?"+q.Encode()), archive, func(resp *http.Response) error {
		if err := json.NewDecoder(resp.Body).Decode(&done); err != nil {
			return explain(ctx, fmt.Errorf("read the answer to a copy: %w", err))
		}
		return nil
	})
	return done.Notes, err
}

// upload sends a tar stream and lets read have the answer, unless that is an error.
func (c *Client) upload(ctx context.Context, method, path string, archive io.Reader, read func(*http.Response) error) error {
	body := &upload{r: archive}
	req, err := http.NewRequestWithContext(ctx, method, "http://aegisd"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", api.TarType)
	// Not the HTTP client: it may lose an answer that comes before the body has ended.
	conn, err := c.dial(ctx)
	if err != nil {
		return explain(ctx, err)
	}
	defer func() { _ = conn.Close() }() // the answer has come, or nobody waits for it
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() { // ends with the connection, and the Read in progress
		_ = req.Write(conn) // the answer tells of its fate, or that there is none
		if body.failed() != nil {
			_ = conn.Close() // the daemon gives up too
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		if failed := body.failed(); failed != nil {
			err = failed
		}
		return explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode >= http.StatusMultipleChoices {
		return failure(resp)
	}
	return read(resp)
}

// upload is the body of a request. It keeps its reader's error apart from those of the
// connection.
type upload struct {
	r   io.Reader
	mu  sync.Mutex
	err error
}

// Read implements io.Reader.
func (u *upload) Read(b []byte) (int, error) {
	n, err := u.r.Read(b)
	if err != nil && err != io.EOF { // as above
		u.mu.Lock()
		u.err = err
		u.mu.Unlock()
	}
	return n, err
}

func (u *upload) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}
