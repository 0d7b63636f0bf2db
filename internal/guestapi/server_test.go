package guestapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stub is a core with one instance, and nothing else.
type stub struct {
	Instances

	panics bool
}

func (s stub) Get(ref string) (instance.View, error) {
	if s.panics {
		panic("a defect")
	}
	if ref != "inst-1" {
		return instance.View{}, fault.New(fault.NotFound, "no %s", ref)
	}
	var v instance.View
	v.ID, v.Spec.Handle = "inst-1", "web"
	return v, nil
}

func (stub) Children(instance.ID) []instance.View { return nil }

type tether struct{ got []api.Frame }

func (t *tether) Emit(_ context.Context, id instance.ID, f api.Frame) (api.Emitted, error) {
	if id != "inst-1" {
		return api.Emitted{}, errors.New("not of that instance")
	}
	t.got = append(t.got, f)
	return api.Emitted{MsgID: f.MsgID, Seq: int64(len(t.got))}, nil
}

// served is a server in a bubble, and its log.
func served(t *testing.T, conf Config) (*Server, *strings.Builder) {
	t.Helper()
	log := &strings.Builder{}
	var mu sync.Mutex
	conf.Log = slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), nil))
	if conf.Instances == nil {
		conf.Instances = stub{}
	}
	s := New(conf)
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, log
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// dial is a program's connection.
func dial(t *testing.T, s *Server, id instance.ID) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(context.Background(), id, far)
	}()
	t.Cleanup(func() {
		_ = near.Close()
		<-done
	})
	return near
}

func ask(t *testing.T, c net.Conn, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://127.0.0.1:7777"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(c); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestWhoAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := served(t, Config{})
		if status, text := ask(t, dial(t, s, "inst-1"), "GET", "/v1/self", ""); status != 200 || !strings.Contains(text, `"id":"inst-1"`) {
			t.Errorf("%d %s", status, text)
		}
		if status, _ := ask(t, dial(t, s, "inst-2"), "GET", "/v1/self", ""); status != 404 {
			t.Errorf("an instance that is gone: %d", status)
		}
	})
}

// A page in a browser in the VM is no program of its user's.
func TestWebPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := served(t, Config{})
		for _, c := range []struct {
			head string
			want int
		}{
			{"Host: 127.0.0.1:7777", 200},
			{"Host: localhost:7777", 200},
			{"Host: localhost", 200},
			{"Host: evil.example", 403},
			{"Host: evil.example:7777", 403},
			{"Host: 127.0.0.1:7777\r\nOrigin: null", 403},
			{"Host: 127.0.0.1:7777\r\nSec-Fetch-Site: cross-site", 403},
		} {
			conn := dial(t, s, "inst-1")
			if _, err := io.WriteString(conn, "GET /v1/self HTTP/1.1\r\n"+c.head+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != c.want {
				t.Errorf("%q: %d, want %d", c.head, res.StatusCode, c.want)
			}
		}
	})
}

func TestTether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := served(t, Config{})
		c := dial(t, s, "inst-1")
		frame := `{"v":1,"type":"assistant.done","msg_id":"m","session":{"channel":"host","id":"x"}}`
		if status, text := ask(t, c, "POST", "/v1/tether/send", frame); status != 503 {
			t.Errorf("without a tether: %d %s", status, text)
		}
		to := &tether{}
		s.SetTether(to)
		if status, text := ask(t, c, "POST", "/v1/tether/send", frame); status != 200 || strings.TrimSpace(text) != `{"msg_id":"m","seq":1}` || len(to.got) != 1 {
			t.Errorf("%d %s", status, text)
		}
	})
}

// A flood is refused, slowly, and the log tells of it now and then.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := served(t, Config{})
		begin := time.Now()
		counts := map[int]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 32 { // what the core lets in
			c := dial(t, s, "inst-1")
			wg.Go(func() {
				for range 400 {
					status, _ := ask(t, c, "GET", "/v1/self", "")
					mu.Lock()
					counts[status]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		took := time.Since(begin)
		if n := float64(counts[200]); n < rateBurst || n > rateBurst+ratePerSecond*(took.Seconds()+1) || counts[200]+counts[429] != 12_800 {
			t.Errorf("%v in %v", counts, took)
		}
		if refused := float64(counts[429]) / took.Seconds(); refused > 32/penalty.Seconds()+1 {
			t.Errorf("%.0f refusals a second", refused)
		}
		if n := strings.Count(log.String(), "guest refused"); n == 0 || n > refusalsBurst+int(took.Seconds())*refusalsPerSecond+1 {
			t.Errorf("%d lines of log in %v", n, took)
		}
		// Another instance has limits of its own; this one's are not renewed by a connection.
		if status, _ := ask(t, dial(t, s, "inst-2"), "GET", "/v1/self", ""); status != 404 {
			t.Errorf("another: %d", status)
		}
	})
}

// What does not end, or begin, gives its place back.
func TestSlowPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := served(t, Config{})
		for _, x := range []struct {
			say  string
			most time.Duration
		}{
			{"", headTime},
			{"GET /v1/self HTT", headTime},
			{"POST /v1/instances HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{", bodyTime},
		} {
			c := dial(t, s, "inst-1")
			begin := time.Now()
			go func() { _, _ = io.WriteString(c, x.say) }()
			_, _ = io.Copy(io.Discard, c)
			if took := time.Since(begin); took > x.most+2*time.Second {
				t.Errorf("%q was waited for for %v", x.say, took)
			}
		}
	})
}

func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := served(t, Config{Instances: stub{panics: true}})
		status, text := ask(t, dial(t, s, "inst-1"), "GET", "/v1/self", "")
		if status != 500 || strings.Contains(text, "a defect\n") || !strings.Contains(log.String(), "a defect") {
			t.Errorf("%d %s", status, text)
		}
	})
}

// The end of an instance's run is that of its connections.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := served(t, Config{})
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(ctx, "inst-1", far)
		}()
		if status, _ := ask(t, near, "GET", "/v1/self", ""); status != 200 {
			t.Errorf("%d", status)
		}
		cancel()
		<-done
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read %v", err)
		}
	})
}

// FuzzRequest: nothing that a guest says breaks the server.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET /v1/self HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /v1/instances HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
		"POST /v1/llm/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"model\":\"x\"}",
		"POST /v1/self/keepalive HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: localhost\r\n\r\n5\r\n{\"ttl\r\n",
		"DELETE /v1/self/expose/99999 HTTP/1.1\r\nHost: localhost\r\n\r\n", "\x00\xff", "PRI * HTTP/2.0\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, log := served(t, Config{Instances: refusing{}})
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(t.Context(), "inst-1", far)
		}()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_ = near.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = near.Write(in)
		_ = near.Close()
		<-done
		if strings.Contains(log.String(), "panic=") {
			t.Error(log)
		}
	})
}

// refusing is a core that does nothing.
type refusing struct{ stub }

var errRefused = fault.New(fault.Conflict, "no")

func (refusing) Child(instance.ID, string) (instance.View, error) {
	return instance.View{}, errRefused
}

func (refusing) Lease(context.Context, string, time.Duration, string) (instance.Lease, error) {
	return instance.Lease{}, errRefused
}

func (refusing) EndLease(context.Context, string) error { return errRefused }

func (refusing) UnexposeByGuest(context.Context, string, uint16) error { return errRefused }

func (refusing) ExposeByGuest(context.Context, string, instance.Expose, int) (instance.Expose, error) {
	return instance.Expose{}, errRefused
}

func (refusing) Restart(context.Context, string) error { return errRefused }

func TestErrorsAreOfOneForm(t *testing.T) {
	for _, k := range fault.Kinds() {
		err := fault.New(k, "no luck").WithHint("try")
		e := errorOf(err)
		if statusOf(err) < 400 || e.Error.Code != string(k) || k != fault.Internal && e.Error.Message != "no luck" {
			t.Errorf("%s: %d %+v", k, statusOf(err), e)
		}
		if b, err := json.Marshal(e); err != nil || !strings.HasPrefix(string(b), `{"error":{"message":`) {
			t.Errorf("%s, %v", b, err)
		}
	}
	if e := errorOf(errors.New("open /home/user/x: no such file")); strings.Contains(e.Error.Message, "/home") {
		t.Errorf("%+v", e)
	}
}
