package mcpserver

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server, its client, and the daemon behind it, which is what a test makes of it.
type world struct {
	t         *testing.T
	api       *http.ServeMux
	socket    string
	launching sync.Mutex
	launches  int
	session   *mcp.ClientSession
	progress  chan string // messages of notifications
}

// newWorld connects a client to a server whose daemon runs.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := sleepingWorld(t)
	w.serve()
	return w
}

// sleepingWorld is a world whose daemon does not run until it is launched.
func sleepingWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, api: http.NewServeMux(), socket: filepath.Join(t.TempDir(), "s"), progress: make(chan string, 1000)}
	s := New(Config{
		Client: client.New(w.socket),
		Launch: func(context.Context) error {
			if !w.launching.TryLock() {
				t.Error("launched twice at a time")
				return nil
			}
			defer w.launching.Unlock()
			if w.launches++; w.launches == 1 {
				w.serve() //nolint:contextcheck // it serves for as long as the test
			}
			return nil
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	there, here := mcp.NewInMemoryTransports()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.WithoutCancel(t.Context()), there) }()
	c := mcp.NewClient(&mcp.Implementation{Name: "test"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, req *mcp.ProgressNotificationClientRequest) { w.progress <- req.Params.Message },
	})
	var err error
	if w.session, err = c.Connect(t.Context(), here, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.session.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) serve() {
	ln, err := presence.Listen(w.t.Context(), w.socket)
	if err != nil {
		w.t.Error(err)
		return
	}
	server := &http.Server{Handler: w.api}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	w.t.Cleanup(func() {
		_ = server.Close() // it ends, in any case
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			w.t.Error(err)
		}
	})
}

// on answers requests of the API with v.
func (w *world) on(pattern string, v any) {
	w.api.HandleFunc(pattern, func(rw http.ResponseWriter, _ *http.Request) { reply(rw, http.StatusOK, v) })
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	_, _ = w.Write(append(b, '\n')) // the test sees what is missing
}

// args are the arguments of a tool.
type args map[string]any

// result calls a tool that must not fail, and decodes its structured result.
func result[Out any](w *world, tool string, in args) (out Out) {
	w.t.Helper()
	res := w.call(tool, in)
	if res.IsError {
		w.t.Fatalf("%s: %s", tool, text(res))
	}
	b, err := json.Marshal(res.StructuredContent)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) call(tool string, in args) *mcp.CallToolResult {
	w.t.Helper()
	res, err := w.session.CallTool(w.t.Context(), &mcp.CallToolParams{Name: tool, Arguments: in})
	if err != nil {
		w.t.Fatalf("%s: %v", tool, err)
	}
	return res
}

// text is what a model reads.
func text(res *mcp.CallToolResult) string {
	var parts []string
	for _, c := range res.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			parts = append(parts, t.Text)
		}
	}
	return strings.Join(parts, "\n")
}
