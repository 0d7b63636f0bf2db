package mcpserver

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// How many bytes of one stream a model gets to read: its beginning, and more of its end,
// where errors are.
const (
	headSize = 8 << 10
	tailSize = 16 << 10
)

// window keeps the beginning and the end of what is written to it. Its memory is bounded.
type window struct {
	headSize, tailSize int

	mu    sync.Mutex
	head  []byte
	tail  []byte // of what came behind head; up to twice tailSize
	total int64  // bytes written
}

func newWindow() *window { return &window{headSize: headSize, tailSize: tailSize} }

// Write implements io.Writer. It never fails.
func (w *window) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(b)
	w.total += int64(n)
	room := min(w.headSize-len(w.head), len(b))
	w.head = append(w.head, b[:room]...)
	b = b[room:]
	if len(b) > w.tailSize {
		b = b[len(b)-w.tailSize:]
		w.tail = w.tail[:0]
	}
	if len(w.tail)+len(b) > 2*w.tailSize {
		keep := w.tail[len(w.tail)-w.tailSize:]
		w.tail = append(w.tail[:0], keep...)
	}
	w.tail = append(w.tail, b...)
	return n, nil
}

// excerpt is what a window has kept.
type excerpt struct {
	text   string // for reading; "" if it is binary
	base64 string // the beginning as it was, if it is binary
	total  int64  // bytes there were
	cut    bool   // not all of them are here
}

// excerpt returns what was kept, with a line in the place of what was not. where says where
// that can be had.
func (w *window) excerpt(where string) excerpt {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := excerpt{total: w.total}
	tail := w.tail[max(0, len(w.tail)-w.tailSize):]
	left := w.total - int64(len(w.head)) - int64(len(tail))
	e.cut = left > 0
	if isBinary(w.head) || isBinary(tail) {
		e.cut = e.cut || len(tail) > 0
		e.base64 = base64.StdEncoding.EncodeToString(w.head)
		return e
	}
	if !e.cut {
		e.text = readable(append(append([]byte(nil), w.head...), tail...))
		return e
	}
	head, tail := endLine(w.head), beginLine(tail)
	left = w.total - int64(len(head)) - int64(len(tail))
	e.text = fmt.Sprintf("%s\n[... %d bytes left out; %s ...]\n%s",
		strings.TrimSuffix(readable(head), "\n"), left, where, readable(tail))
	return e
}

// isBinary tells what is for no reader, as grep and git do.
func isBinary(b []byte) bool { return bytes.IndexByte(b, 0) >= 0 }

// readable returns text as it is, and bytes that are not UTF-8 as \xff.
func readable(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&out, `\x%02x`, b[0])
		} else {
			out.Write(b[:n])
		}
		b = b[n:]
	}
	return out.String()
}

// endLine takes half a line off the end of b, or at least half a character.
func endLine(b []byte) []byte {
	if i := bytes.LastIndexByte(b, '\n'); i >= len(b)/2 {
		return b[:i+1]
	}
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// beginLine takes half a line off the beginning of b, or at least half a character.
func beginLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 && i < len(b)/2 {
		return b[i+1:]
	}
	for i := 0; i < utf8.UTFMax && i < len(b); i++ {
		if utf8.RuneStart(b[i]) {
			return b[i:]
		}
	}
	return b
}
