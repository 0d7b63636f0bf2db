package modeltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/agent/history"
)

// Key is the key that the server takes.
const Key = "sk-test-0123456789"

// API is a wire format.
type API string

// The formats, as the paths that they are served at.
const (
	Chat      API = "/v1/chat/completions"
	Responses API = "/v1/responses"
	Messages  API = "/v1/messages"
	Guest     API = "/v1/llm/chat" // chat completions, as the Guest API passes them on
)

// Request is what the server was asked.
type Request struct {
	API      API
	Model    string
	System   string
	Messages []history.Message // images have the length of their data as Blob
	Tools    []string
	NoCalls  bool
	N        int // how many were asked before
}

// Last returns the newest message.
func (r Request) Last() history.Message { return r.Messages[len(r.Messages)-1] }

// Step is what the server says.
type Step struct {
	Text      string
	Reasoning string
	Calls     []Call
	Stop      string // of the format; "" is what suits

	Status    int // an error instead
	Header    map[string]string
	Body      string
	Delay     time.Duration // before the first byte
	Hang      bool          // says nothing more after CutAfter events
	CutAfter  int           // ends the connection after so many events
	Malformed bool          // sends half a JSON object in the middle
	Fail      string        // an error in the middle of the stream, of this type
	Pace      time.Duration // between events
}

// Call is a use of a tool.
type Call struct{ ID, Name, Args string }

// Server is a model. Its Script says what it answers; it is called from many goroutines.
type Server struct {
	*httptest.Server

	Script func(Request) Step
	// Open is set of a server that asks for no key, like one on the user's own machine. It
	// is set before the server is asked anything.
	Open bool

	mu       sync.Mutex
	requests []Request
	faults   []string
}

// New starts a server, which ends with the test. At the end the test fails if any request
// was invalid.
func New(tb testing.TB, script func(Request) Step) *Server {
	tb.Helper()
	s := &Server{Script: script}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	tb.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		for _, f := range s.Faults() {
			tb.Errorf("the model was sent something invalid: %s", f)
		}
	})
	return s
}

// Sequence returns a script that says one step after the other, and then the last for ever.
func Sequence(steps ...Step) func(Request) Step {
	return func(r Request) Step { return steps[min(r.N, len(steps)-1)] }
}

// Faults returns what was wrong with requests.
func (s *Server) Faults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.faults...)
}

// Requests returns what the server was asked.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // who asked is gone
	}
	api := API(r.URL.Path)
	if err := authorized(api, r.Header); err != nil && !s.Open {
		refuse(w, api, http.StatusUnauthorized, "authentication_error", err.Error())
		return
	}
	read := map[API]func([]byte) (Request, error){Chat: readChat, Guest: readChat, Responses: readResponses, Messages: readMessages}[api]
	if read == nil {
		http.NotFound(w, r)
		return
	}
	req, err := read(body)
	req.API = api
	s.mu.Lock()
	req.N = len(s.requests)
	s.requests = append(s.requests, req)
	if err != nil {
		s.faults = append(s.faults, fmt.Sprintf("%s: %v\n%s", api, err, body))
	}
	s.mu.Unlock()
	if err != nil {
		refuse(w, api, http.StatusBadRequest, "invalid_request_error", err.Error())
		return
	}
	step := s.Script(req)
	if step.Delay > 0 {
		select {
		case <-time.After(step.Delay):
		case <-r.Context().Done():
			return
		}
	}
	for k, v := range step.Header {
		w.Header().Set(k, v)
	}
	if step.Status != 0 {
		if step.Body != "" {
			w.WriteHeader(step.Status)
			_, _ = io.WriteString(w, step.Body)
			return
		}
		refuse(w, api, step.Status, "server_error", "no luck")
		return
	}
	stream(w, r, step, events(api, req.Model, step))
}

func authorized(api API, h http.Header) error {
	if api == Guest {
		return nil
	}
	if api == Messages {
		if h.Get("X-Api-Key") != Key {
			return errors.New("invalid x-api-key")
		}
		if h.Get("Anthropic-Version") == "" {
			return errors.New("no anthropic-version")
		}
		return nil
	}
	if h.Get("Authorization") != "Bearer "+Key {
		return errors.New("incorrect API key provided")
	}
	return nil
}

func refuse(w http.ResponseWriter, api API, status int, kind, msg string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := map[string]any{"error": map[string]any{"type": kind, "message": msg, "code": nil, "param": nil}}
	if api == Messages {
		e = map[string]any{"type": "error", "error": map[string]any{"type": kind, "message": msg}}
	}
	_ = json.NewEncoder(w).Encode(e)
}

// event is one of a stream. Where name is empty it has data only.
type event struct {
	name string
	data any // encoded, or a string as it is
}

func stream(w http.ResponseWriter, r *http.Request, step Step, events []event) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush()
	for i, e := range events {
		switch {
		case step.Hang && i >= step.CutAfter:
			<-r.Context().Done()
			return
		case step.CutAfter > 0 && i >= step.CutAfter:
			panic(http.ErrAbortHandler)
		case step.Malformed && i == len(events)/2:
			if e.name != "" {
				_, _ = fmt.Fprintf(w, "event: %s\n", e.name)
			}
			_, _ = io.WriteString(w, "data: {\"choices\": [{\"delta\"\n\n")
		}
		if step.Pace > 0 {
			<-time.After(step.Pace)
		}
		data, raw := e.data.(string)
		if !raw {
			b, err := json.Marshal(e.data)
			if err != nil {
				panic(err)
			}
			data = string(b)
		}
		if e.name != "" {
			_, _ = fmt.Fprintf(w, "event: %s\n", e.name)
		}
		_, _ = fmt.Fprintf(w, "data: %s\n\n", data)
		_ = out.Flush()
	}
}

// pieces cuts text as models do.
func pieces(text string) []string {
	if text == "" {
		return nil
	}
	return strings.SplitAfter(text, " ")
}

// object says what is wrong with arguments that ought to be a JSON object.
func object(raw string) error {
	var m map[string]any
	if err := json.Unmarshal([]byte(raw), &m); err != nil || m == nil {
		return fmt.Errorf("arguments %q are no object", raw)
	}
	return nil
}
