package setup

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// heartbeat is how often a step that says nothing else shows that it is alive.
const heartbeat = 15 * time.Second

// reporter writes progress lines. Its methods may be called together. Nothing
// depends on a line being read: errors of the writer are dropped.
type reporter struct {
	mu   sync.Mutex
	out  io.Writer
	last time.Time // when the last line was written
}

func (r *reporter) line(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.out, format+"\n", args...)
	r.last = time.Now()
}

// during runs step, and writes a line whenever none came for a while.
func (r *reporter) during(ctx context.Context, what string, step func(context.Context) error) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		start := time.Now()
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				r.mu.Lock()
				quiet := now.Sub(r.last) >= heartbeat
				r.mu.Unlock()
				if quiet {
					r.line("%s: still at work after %d s", what, int(now.Sub(start).Seconds()))
				}
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	return step(ctx)
}

// tail is a writer that keeps the last lines written to it and hands each to a
// function.
type tail struct {
	each  func(line string)
	part  []byte
	lines []string
}

const tailLines = 8

func (t *tail) Write(p []byte) (int, error) {
	t.part = append(t.part, p...)
	for {
		i := bytes.IndexByte(t.part, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := strings.TrimRight(string(t.part[:i]), "\r")
		t.part = t.part[i+1:]
		if t.lines = append(t.lines, line); len(t.lines) > tailLines {
			t.lines = t.lines[1:]
		}
		if t.each != nil {
			t.each(line)
		}
	}
}

func (t *tail) String() string { return strings.Join(t.lines, "\n") }
