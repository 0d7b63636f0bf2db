package logline

import (
	"bytes"
	"io"
	"net/url"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// chunks is a source that hands out stdout in the sizes that it is told, and ends.
type chunks struct {
	data  []byte
	sizes []byte
	ended bool
}

func (c *chunks) Recv() (frame.Frame, error) {
	if len(c.data) == 0 {
		if c.ended {
			return frame.Frame{}, io.EOF
		}
		c.ended = true
		return frame.Frame{Type: frame.Exit, Payload: frame.EncodeStatus(7)}, nil
	}
	n := len(c.data)
	if len(c.sizes) > 0 {
		n, c.sizes = min(n, int(c.sizes[0])), c.sizes[1:]
	}
	f := frame.Frame{Type: frame.Stdout, Payload: c.data[:n]}
	c.data = c.data[n:]
	return f, nil
}

// FuzzRelay: however a program's output is cut up on its way, its lines come out whole and
// in order, long ones in parts that say so.
func FuzzRelay(f *testing.F) {
	f.Add([]byte("a\nb\n\nc"), []byte{1, 0, 3}, 10)
	f.Add([]byte("0123456789\xff\xfe\r\n"), []byte{4}, 3)
	f.Add([]byte{}, []byte{}, 1)
	f.Fuzz(func(t *testing.T, data, sizes []byte, most int) {
		if most < 1 || most > 1<<20 {
			return
		}
		var got []byte
		status, err := Relay(&chunks{data: data, sizes: sizes}, api.LogEntry{}, most, func(e api.LogEntry) {
			line := []byte(e.Line)
			if e.Bytes != nil {
				line = e.Bytes
			}
			got = append(got, line...)
			if !e.Open {
				got = append(got, '\n')
			}
		})
		if err != nil || status != 7 || !bytes.Equal(got, data) {
			t.Fatalf("%q came out as %q: %d, %v", data, got, status, err)
		}
	})
}

// FuzzQuery reads parameters as anybody may write them.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{"follow=1&tail=5", "since=5m&execs=true", "since=2026-01-02T03:04:05Z", "tail=-1", "since=-1h&exec_id=%00", "tail=999999999999999999999"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		if q, err := Query(v); err != nil && fault.KindOf(err) != fault.Invalid || q.Since.After(time.Now()) && v.Get("since")[0] == '-' {
			t.Fatalf("%q: since %v, %v", text, q.Since, err)
		}
	})
}
