package mcpserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	// beat is how often a client hears of a call that goes on, so that it does not take it
	// for one that hangs.
	beat = 5 * time.Second
	// gap is the least time between two notifications: a program may write faster than
	// anyone reads.
	gap = 200 * time.Millisecond
)

// progress tells a client how far its call is, if it asked to be told. It never keeps the
// call waiting: of what comes too fast the last is told. A nil progress tells nobody.
type progress struct {
	notify func(n int, message string)
	news   chan struct{} // holds a token while message is new
	quit   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	message string
}

func newProgress(ctx context.Context, req *mcp.CallToolRequest) *progress {
	token := req.Params.GetProgressToken()
	if token == nil {
		return nil
	}
	return startProgress(func(n int, message string) {
		// A client that cannot be told will not get the result either.
		_ = req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
			ProgressToken: token, Progress: float64(n), Message: message,
		})
	})
}

func startProgress(notify func(int, string)) *progress {
	p := &progress{notify: notify, news: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p
}

// say makes text what the client hears next.
func (p *progress) say(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.message = fmt.Sprintf(format, args...)
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default: // it will be told with what is new already
	}
}

// end stops telling. No notification follows it.
func (p *progress) end() {
	if p == nil {
		return
	}
	close(p.quit)
	<-p.done
}

func (p *progress) run() {
	defer close(p.done)
	begun := time.Now()
	beats := time.NewTicker(beat)
	defer beats.Stop()
	for n := 1; ; n++ {
		suffix := ""
		select {
		case <-p.news:
		case <-beats.C:
			suffix = fmt.Sprintf(" (%d s)", int(time.Since(begun).Seconds()))
		case <-p.quit:
			return
		}
		p.notify(n, p.last()+suffix)
		pause := time.NewTimer(gap)
		select {
		case <-pause.C:
		case <-p.quit:
			pause.Stop()
			return
		}
	}
}

func (p *progress) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.message == "" {
		return "working"
	}
	return p.message
}
