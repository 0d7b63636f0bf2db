package gateway

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Gateway runs the channels that gateway.json configures, and follows its changes.
type Gateway struct {
	Log   *slog.Logger
	Kinds []Kind
	Agent Agent
	Ref   string // of the instance
	File  string // gateway.json, in kits/<handle> of the home
	State string // the folder of what channels keep
	Env   func(string) (string, bool)

	running map[string]*channel // by the kind's name
	said    map[string]string   // why a channel does not run, as the log has it
	badFile string              // the file that was refused last
}

// channel is one that runs.
type channel struct {
	print  string
	cancel context.CancelFunc
	ended  chan struct{}
}

// firstSecrets is how long the daemon has to tell the secrets before the log calls
// them missing.
const firstSecrets = 3 * time.Second

// Run runs channels until ctx ends. It returns when all have ended. secrets may be nil.
func (g *Gateway) Run(ctx context.Context, secrets *stored, changed chan struct{}) {
	g.running, g.said = map[string]*channel{}, map[string]string{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer g.stopAll()
	wg.Go(func() { watchFile(ctx, g.File, changed) })
	if secrets != nil {
		timer := time.NewTimer(firstSecrets)
		select {
		case <-secrets.first:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			g.apply(ctx, secrets)
		}
	}
}

func (g *Gateway) stopAll() {
	for _, c := range g.running {
		c.cancel()
	}
	for _, c := range g.running {
		<-c.ended
	}
}

// apply makes what runs what the file says. A file that is wrong changes nothing.
func (g *Gateway) apply(ctx context.Context, secrets *stored) {
	var values map[string]string
	if secrets != nil {
		values = secrets.get()
	}
	b, err := readConfig(g.File)
	var conf config
	if err == nil {
		conf, err = parseConfig(b, g.Kinds)
	}
	opened := map[string]Channel{}
	waits := map[string]error{}
	if err == nil {
		opened, waits, err = g.open(conf, NewKeys(values, g.Env))
	}
	if err != nil {
		if why := string(b) + err.Error(); why != g.badFile {
			g.badFile = why
			g.Log.ErrorContext(ctx, "gateway.json is refused; what it said before stays in force", logattr.Err(err), hint(err))
		}
		return
	}
	g.badFile = ""
	for _, k := range g.Kinds {
		g.change(ctx, k.Name, opened[k.Name], fingerprint(conf[k.Name], values))
		g.explain(ctx, k.Name, conf[k.Name] != nil, waits[k.Name])
	}
}

// open opens a channel for each section, or says for what it waits.
func (g *Gateway) open(conf config, keys Keys) (map[string]Channel, map[string]error, error) {
	opened, waits := map[string]Channel{}, map[string]error{}
	for _, k := range g.Kinds {
		section, ok := conf[k.Name]
		if !ok {
			continue
		}
		ch, err := k.Open(g.Log.With(logattr.Channel(k.Name)), section, keys)
		switch {
		case err == nil:
			opened[k.Name] = ch
		case fault.KindOf(err) == fault.Unavailable:
			waits[k.Name] = err
		default:
			return nil, nil, err
		}
	}
	return opened, waits, nil
}

// change makes ch the channel name that runs; nil is none. One that is the same goes on.
func (g *Gateway) change(ctx context.Context, name string, ch Channel, print string) {
	old := g.running[name]
	if old != nil && ch != nil && old.print == print {
		return
	}
	if old != nil {
		old.cancel()
		<-old.ended
		delete(g.running, name)
		g.Log.InfoContext(ctx, "channel ends", logattr.Channel(name))
	}
	if ch == nil {
		return
	}
	line := NewLine(g.Log.With(logattr.Channel(name)), g.Agent, g.Ref, name, filepath.Join(g.State, name))
	ctx, cancel := context.WithCancel(ctx)
	c := &channel{print: print, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		line.Run(ctx, ch)
	}()
	g.running[name] = c
	g.Log.InfoContext(ctx, "channel begins", logattr.Channel(name))
}

// explain logs why a channel does not run, once.
func (g *Gateway) explain(ctx context.Context, name string, configured bool, waits error) {
	why := ""
	switch {
	case waits != nil:
		why = waits.Error()
	case !configured:
		why = "not configured"
	}
	if g.said[name] == why {
		return
	}
	g.said[name] = why
	if waits != nil {
		g.Log.WarnContext(ctx, "channel waits", logattr.Channel(name), logattr.Err(waits), hint(waits))
	}
}
