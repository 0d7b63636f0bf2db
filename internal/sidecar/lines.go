package sidecar

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// The limits of what a sidecar writes: it shares the instance's log with its program.
const (
	maxLine   = 4 << 10
	lineRate  = 50 // each second
	lineBurst = 500
)

// lines is an io.Writer that passes on lines. What comes too fast is left out, and said
// to be.
type lines struct {
	tell  func(string)
	limit *rate.Limiter

	mu   sync.Mutex // stdout and stderr
	rest []byte
	lost int
}

func newLines(tell func(string)) *lines {
	return &lines{tell: tell, limit: rate.NewLimiter(lineRate, lineBurst)}
}

// Write implements io.Writer. It takes everything.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), maxLine-len(l.rest))
		end := bytes.IndexByte(p[:n], '\n')
		if end >= 0 {
			n = end
		}
		l.rest = append(l.rest, p[:n]...)
		p = p[n:]
		if end >= 0 {
			p = p[1:]
		}
		if end >= 0 || len(l.rest) == maxLine {
			l.put()
		}
	}
	return total, nil
}

// flush passes on what has no end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.put()
	}
	l.confess()
}

func (l *lines) put() {
	text := strings.ToValidUTF8(string(bytes.TrimRight(l.rest, "\r")), "\uFFFD")
	l.rest = l.rest[:0]
	if !l.limit.Allow() {
		l.lost++
		return
	}
	l.confess()
	l.tell(text)
}

func (l *lines) confess() {
	if l.lost > 0 {
		l.tell(fmt.Sprintf("(%d lines are left out: it writes too fast)", l.lost))
		l.lost = 0
	}
}
