package mcpserver

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"
)

func writeAll(w *window, parts ...string) {
	for _, p := range parts {
		_, _ = w.Write([]byte(p)) // never fails
	}
}

func TestWindow(t *testing.T) {
	for name, c := range map[string]struct {
		parts []string
		want  string
		cut   bool
	}{
		"nothing":         {nil, "", false},
		"all of it":       {[]string{"one\n", "two\n"}, "one\ntwo\n", false},
		"head and tail":   {[]string{"0123456789", "abcdefghij"}, "0123456789abcdefghij", false},
		"the middle":      {[]string{"a\nbbbbbb\nc\n", strings.Repeat("x\n", 50), "last words\n"}, "a\nbbbbbb\n[... 94 bytes left out; HERE ...]\nx\nx\nx\nx\nlast words\n", true},
		"one long line":   {[]string{strings.Repeat("x", 100)}, strings.Repeat("x", 10) + "\n[... 70 bytes left out; HERE ...]\n" + strings.Repeat("x", 20), true},
		"half characters": {[]string{"12345678é", strings.Repeat("é", 50)}, "12345678é\n[... 80 bytes left out; HERE ...]\n" + strings.Repeat("é", 10), true},
		"latin 1":         {[]string{"caf\xe9\n"}, "caf\\xe9\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := &window{headSize: 10, tailSize: 20}
			writeAll(w, c.parts...)
			e := w.excerpt("HERE")
			if e.text != c.want || e.cut != c.cut || e.base64 != "" {
				t.Errorf("got %q, cut %v; want %q", e.text, e.cut, c.want)
			}
			if total := len(strings.Join(c.parts, "")); e.total != int64(total) {
				t.Errorf("total %d, want %d", e.total, total)
			}
		})
	}
}

func TestWindowBinary(t *testing.T) {
	w := &window{headSize: 10, tailSize: 20}
	writeAll(w, "\x7fELF\x00\x01\x02\x03", "more than the head takes")
	e := w.excerpt("")
	if b, err := base64.StdEncoding.DecodeString(e.base64); err != nil || string(b) != "\x7fELF\x00\x01\x02\x03mo" || e.text != "" || !e.cut {
		t.Errorf("%q, %v, text %q, cut %v", b, err, e.text, e.cut)
	}
}

// TestWindowKeepsLittle: what is kept does not grow with what is written.
func TestWindowKeepsLittle(t *testing.T) {
	w := newWindow()
	block := strings.Repeat("0123456789abcde\n", 4<<10)
	for range 200 {
		writeAll(w, block)
	}
	if kept := cap(w.head) + cap(w.tail); kept > 4*(headSize+tailSize) {
		t.Errorf("%d bytes are kept", kept)
	}
	if e := w.excerpt(""); !e.cut || e.total != int64(200*len(block)) || len(e.text) > headSize+tailSize+100 {
		t.Errorf("cut %v, total %d, %d bytes of text", e.cut, e.total, len(e.text))
	}
}

// FuzzWindow: whatever a program writes, in whatever pieces, becomes bounded valid text,
// and nothing is lost that there is room for.
func FuzzWindow(f *testing.F) {
	f.Add([]byte("a\nb\n"), 1)
	f.Add([]byte("\xff\xfe\x00"), 2)
	f.Add([]byte(strings.Repeat("é\n", 40)), 7)
	f.Add([]byte(strings.Repeat("\xc3", 40)), 3)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		piece = max(1, min(piece, 1000))
		w := &window{headSize: 10, tailSize: 20}
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			writeAll(w, string(rest[:n]))
			rest = rest[n:]
		}
		e := w.excerpt("x")
		if !utf8.ValidString(e.text) || len(e.text) > 4*30+100 || e.total != int64(len(data)) {
			t.Errorf("text %q of %d bytes", e.text, e.total)
		}
		if len(data) <= 30 && !isBinary(data) && (e.cut || e.text != readable(data)) {
			t.Errorf("%q became %q", data, e.text)
		}
	})
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"one\ntwo\n":             "two",
		"half":                   "half",
		"\n \n":                  "",
		strings.Repeat("x", 300): strings.Repeat("x", maxProgressLine) + "...",
		"50%\r60%\n":             "50%\r60%",
	} {
		if got := lastLine([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
