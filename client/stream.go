package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// LogQuery says which lines of an instance's log to read.
type LogQuery struct {
	Since  string // RFC 3339, or how long ago, such as "5m"; "" is all
	Tail   int    // only the last lines; negative is all
	Follow bool   // go on with what comes
	Execs  bool   // lines of execs too
	ExecID string // only lines of this exec
}

// Logs returns lines of an instance's log, oldest first. With Follow it ends with
// ctx, or with the instance.
func (c *Client) Logs(ctx context.Context, ref string, q LogQuery) iter.Seq2[api.LogEntry, error] {
	v := url.Values{"tail": {strconv.Itoa(q.Tail)}, "follow": {strconv.FormatBool(q.Follow)}, "execs": {strconv.FormatBool(q.Execs)}}
	if q.Since != "" {
		v.Set("since", q.Since)
	}
	if q.ExecID != "" {
		v.Set("exec_id", q.ExecID)
	}
	return lines[api.LogEntry](ctx, c, http.MethodGet, at(ref, "/logs?"+v.Encode()))
}

// Events returns the changes of state of all instances from now on, until ctx or the
// daemon ends.
func (c *Client) Events(ctx context.Context) iter.Seq2[api.Event, error] {
	return lines[api.Event](ctx, c, http.MethodGet, "/v1/events")
}

// maxLine bounds what one line of a stream makes the client keep.
const maxLine = 64 << 20

// lines returns the lines of an answer of NDJSON. An error of the server's within the
// stream is the last.
func lines[T any](ctx context.Context, c *Client, method, path string) iter.Seq2[T, error] {
	return linesOf[T](ctx, c, method, path, nil)
}

// linesOf is lines of the answer to a request with the body in.
func linesOf[T any](ctx context.Context, c *Client, method, path string, in any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		req, err := request(ctx, method, path, in)
		if err != nil {
			yield(none, err)
			return
		}
		resp, err := c.http.Do(req)
		if err != nil {
			yield(none, explain(ctx, err))
			return
		}
		defer func() { _ = resp.Body.Close() }() // only read
		if resp.StatusCode >= http.StatusMultipleChoices {
			yield(none, failure(resp))
			return
		}
		readLines(ctx, resp.Body, yield)
	}
}

// readLines passes on the lines of an answer of NDJSON, until there are no more or yield
// wants none.
func readLines[T any](ctx context.Context, r io.Reader, yield func(T, error) bool) {
	var none T
	for in := bufio.NewReaderSize(r, 64<<10); ; {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(none, cutOff(ctx, err))
			return
		}
		v, err := decodeLine[T](line)
		if !yield(v, err) || err != nil {
			return
		}
	}
}

// cutOff explains the end of a stream of lines that was not its daemon's wish.
func cutOff(ctx context.Context, err error) error {
	if context.Cause(ctx) == nil && isLost(err) {
		return fault.New(fault.Unavailable, "aegisd ended").
			By(fault.Host).WithHint("its log tells why; start it again: aegis up")
	}
	return explain(ctx, err)
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		case len(line) > maxLine:
			return nil, fmt.Errorf("a line of over %d MB", maxLine>>20)
		}
	}
}

// errorKey begins what only an api.Error has at its top: within a string JSON escapes
// the quotes.
var errorKey = []byte(`{"error":`)

func decodeLine[T any](line []byte) (T, error) {
	var v T
	if bytes.HasPrefix(line, errorKey) {
		var failed api.Error
		if err := json.Unmarshal(line, &failed); err == nil && failed.Error != "" {
			return v, failed.Fault()
		}
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return v, fmt.Errorf("decode a line of the answer: %w", err)
	}
	return v, nil
}
