package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/blob"
	"github.com/xfeldman/aegisvm/internal/agent/guestapi"
	"github.com/xfeldman/aegisvm/internal/agent/memory"
	"github.com/xfeldman/aegisvm/internal/agent/session"
	"github.com/xfeldman/aegisvm/internal/agent/settings"
	"github.com/xfeldman/aegisvm/internal/agent/tool"
	"github.com/xfeldman/aegisvm/internal/agent/toolserver"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// What the agent goes on with when it starts.
const (
	resumeSessions = 32
	resumeAge      = 7 * 24 * time.Hour
)

// openSessions is how many conversations without a run stay in memory.
const openSessions = 16

// stopTimeout bounds the end of the agent: runs stop, servers of tools end.
const stopTimeout = 5 * time.Second

// errShutdown is why runs end when the agent does. They are gone on with by the next.
var errShutdown = errors.New("the agent ends")

// Agent is the agent of one machine. Run is its life.
type Agent struct {
	conf     Config
	log      *slog.Logger
	host     *guestapi.Client
	web      *http.Client // to models and the web
	blobs    *blob.Store
	memory   *memory.Store
	servers  *toolserver.Pool
	cron     []tool.Tool
	activity *activity
	last     *lastSession

	bench bench // with the newest kit

	sourceMu sync.Mutex // one goroutine at a time reads the settings
	source   *settings.Source

	wg            sync.WaitGroup // of runs
	mu            sync.Mutex
	conversations map[api.Session]*conversation
}

// New returns an agent. It makes what folders it needs.
func New(conf Config) (*Agent, error) {
	for _, dir := range []string{conf.sessions(), conf.own("")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "prepare the workspace").WithHint("see whether %s is there and can be written to", conf.Workspace)
		}
	}
	a := &Agent{
		conf: conf, log: conf.Log,
		host:          guestapi.New(conf.GuestAPI),
		web:           &http.Client{Transport: transport(conf)},
		blobs:         &blob.Store{Dir: conf.own("blobs")},
		memory:        memory.New(conf.own("memory.json")),
		source:        &settings.Source{Path: conf.own("agent.json"), Getenv: conf.Getenv},
		activity:      newActivity(),
		last:          &lastSession{path: conf.own("agent-last-session.json")},
		cron:          tool.Cron(conf.own("cron.json")),
		conversations: map[api.Session]*conversation{},
	}
	a.servers = toolserver.New(a.log, conf.Workspace, a.blobs)
	return a, nil
}

// transport returns connections that notice soon when a machine's sleep has cut them.
func transport(conf Config) http.RoundTripper {
	if conf.Transport != nil {
		return conf.Transport
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 4,
	}
}

// Run serves until ctx ends, and returns when all that it started has ended. It listens
// before it goes on with old work, so that no frame waits for that.
func (a *Agent) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.conf.Listen)
	if err != nil {
		return fmt.Errorf("listen for the host: %w", err)
	}
	return a.serve(ctx, listener)
}

func (a *Agent) serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	server := &http.Server{
		Handler: a.routes(ctx), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	var parts sync.WaitGroup
	parts.Go(func() { a.keepAwake(ctx) })
	parts.Go(func() { a.startServers(ctx) })
	parts.Go(func() { a.resume(ctx) })
	served := make(chan error, 1)
	parts.Go(func() { served <- server.Serve(listener) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	cancel(errShutdown)
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer stop()
	if errors.Is(server.Shutdown(end), context.DeadlineExceeded) {
		err = errors.Join(err, server.Close())
	}
	parts.Wait()
	a.wg.Wait()
	a.servers.Close(ctx)
	a.closeSessions(0, nil)
	a.host.CloseIdle()
	a.web.CloseIdleConnections()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// startServers starts what the settings name before anybody asks. Wrong settings are told
// to the first who does.
func (a *Agent) startServers(ctx context.Context) {
	if s, _ := a.settings(); s != nil {
		a.servers.Use(ctx, a.serverConf(s))
	}
}

// settings returns the settings in force: see settings.Source.
func (a *Agent) settings() (*settings.Settings, error) {
	a.sourceMu.Lock()
	defer a.sourceMu.Unlock()
	return a.source.Load()
}

// resume goes on with messages that an agent before this one has not ended.
func (a *Agent) resume(ctx context.Context) {
	keys, err := session.Recent(a.conf.sessions(), time.Now().Add(-resumeAge), resumeSessions)
	if err != nil {
		a.log.ErrorContext(ctx, "look for unfinished work", logattr.Err(err))
	}
	for _, key := range keys {
		if ctx.Err() != nil {
			return
		}
		if err := a.conversation(key).resume(ctx); err != nil {
			a.log.ErrorContext(ctx, "go on with a session", logattr.Part(session.FileName(key)), logattr.Err(err))
		}
	}
	a.closeSessions(openSessions, nil)
}

func (a *Agent) conversation(key api.Session) *conversation {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.conversations[key]
	if c == nil {
		c = &conversation{agent: a, key: key}
		a.conversations[key] = c
	}
	return c
}

// closeSessions closes sessions without a run until no more than keep are open, and leaves
// that of but alone. Conversations stay: whoever has one may use it.
func (a *Agent) closeSessions(keep int, but *conversation) {
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.conversations))
	a.mu.Unlock()
	open := slices.DeleteFunc(all, func(c *conversation) bool { return !c.isOpen() })
	left := len(open)
	for _, c := range open {
		if left > keep && c != but && c.close() {
			left--
		}
	}
}

// Self implements tool.Host.
func (a *Agent) Self(ctx context.Context) (json.RawMessage, error) { return a.host.Self(ctx) }

// Restart implements tool.Host.
func (a *Agent) Restart(ctx context.Context) error { return a.host.Restart(ctx) }

// Notify implements tool.Host.
func (a *Agent) Notify(ctx context.Context, to api.Session, text string) (api.Session, error) {
	if to == (api.Session{}) {
		var ok bool
		if to, ok = a.last.get(); !ok {
			return to, fault.New(fault.NotFound, "nobody has written to you yet: name channel and session_id")
		}
	}
	f, err := newFrame(api.FrameDone, to, "", api.AssistantMessage{Text: text})
	if err != nil {
		return to, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return to, a.host.Send(ctx, f)
}
