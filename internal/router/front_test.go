package router

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// get asks for a page and reads the answer.
func (f *front) get(tb testing.TB, url string, header ...string) answer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	must(tb, err)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	res, err := f.http.Do(r)
	must(tb, err)
	defer res.Body.Close() //nolint:errcheck // it is read to its end
	body, err := io.ReadAll(res.Body)
	must(tb, err)
	return answer{res.StatusCode, res.Header, string(body)}
}

func TestFrontErrors(t *testing.T) {
	exhausted := fault.New(fault.Exhausted, "no <memory>").WithHint("stop something")
	for name, c := range map[string]struct {
		url    string
		set    func(*stubInstances)
		status int
		says   string
	}{
		"unknown":      {"http://nobody.localhost/", nil, 404, "there is no instance"},
		"not exposed":  {"http://81-web.localhost/", nil, 404, "not exposed"},
		"foreign name": {"http://evil.com/", nil, 403, "evil.com"},
		"asleep":       {"http://web.localhost/", func(s *stubInstances) { s.wakeErr = exhausted }, 503, "memory"},
		"disabled": {"http://web.localhost/", func(s *stubInstances) {
			s.wakeErr = fault.Wrap(fault.Conflict, instance.ErrDisabled, "web").WithHint("start it")
		}, 503, "disabled"},
		"program missing": {"http://web.localhost/", func(s *stubInstances) {
			s.wakeErr = fault.New(fault.NotFound, "no-such: command not found").By(fault.Program)
		}, 503, "command not found"},
		"deleted meanwhile": {"http://web.localhost/", func(s *stubInstances) {
			s.wakeErr = fault.Wrap(fault.NotFound, instance.ErrDeleted, "web")
		}, 404, "deleted"},
		"nothing listens": {"http://82-web.localhost/", nil, 502, "nothing listens on port 82"},
		"no HTTP":         {"http://83-web.localhost/", nil, 502, "the program broke off"},
		"hangs up":        {"http://84-web.localhost/", nil, 502, "the program broke off"},
		"never wakes":     {"http://web.localhost/", func(s *stubInstances) { s.hang = true }, 503, "did not wake within 50ms"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &stubInstances{programs: map[uint16]string{
				80: site(t, func(http.ResponseWriter, *http.Request) {}),
				83: program(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "220 smtp.example\r\n") }),
				84: program(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1000)) }),
			}}
			s.add("web", http80(80), http80(82), http80(83), http80(84))
			if c.set != nil {
				c.set(s)
			}
			f := newTestFront(t, s)
			f.wake = 50 * time.Millisecond
			plain := f.get(t, c.url)
			var said api.Error
			if err := json.Unmarshal([]byte(plain.body), &said); err != nil || !strings.Contains(said.Error, c.says) {
				t.Errorf("%q, %v", plain.body, err)
			}
			page := f.get(t, c.url, "Accept: text/html,application/xhtml+xml,*/*;q=0.8")
			if !strings.Contains(page.body, "<!doctype html>") || strings.Contains(page.body, "<memory>") || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") {
				t.Errorf("%q", page.body)
			}
			retry := ""
			if c.status == http.StatusServiceUnavailable {
				retry = "3"
			}
			for _, a := range []answer{plain, page} {
				if a.status != c.status || a.header.Get("Retry-After") != retry || a.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%d, %v", a.status, a.header)
				}
			}
			f.settle(t)
		})
	}
}

// TestFrontPassesOn looks at what a guest is asked, and at what its answer looks like.
func TestFrontPassesOn(t *testing.T) {
	asked := make(chan string, 1)
	answer := "HTTP/1.1 299 Sure\r\nx-odd_NAME: 1\r\nX-Twice: a\r\nX-Twice: b\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 6\r\n\r\n<html>"
	s := &stubInstances{programs: map[uint16]string{80: program(t, func(c *net.TCPConn) {
		b := bufio.NewReader(c)
		head := ""
		for !strings.HasSuffix(head, "\r\n\r\n") {
			line, err := b.ReadString('\n')
			if err != nil {
				return
			}
			head += line
		}
		asked <- head
		_, _ = io.WriteString(c, answer)
	})}}
	s.add("web", http80(80))
	f := newTestFront(t, s)
	for _, c := range []struct{ say, want []string }{
		{
			[]string{
				"GET /a%2Fb//c/../d?x=1;y=%zz&z HTTP/1.1", "Host: Web.localhost:8099", "x-Mixed_case: One", "X-Twice: a", "X-Twice: b",
				"X-Forwarded-For: 10.1.1.1", "Accept-Encoding: br", "TE: trailers", "Cookie: a=1", "X-Aegis-Instance: web", "Connection: close",
			},
			[]string{
				"GET /a%2Fb//c/../d?x=1;y=%zz&z HTTP/1.1\r\n", "\r\nHost: Web.localhost:8099\r\n", "\r\nX-Mixed_case: One\r\n", "\r\nX-Twice: a\r\nX-Twice: b\r\n",
				"\r\nX-Forwarded-For: 10.1.1.1, 127.0.0.1\r\n", "\r\nX-Forwarded-Host: Web.localhost:8099\r\n", "\r\nX-Forwarded-Proto: http\r\n",
				"\r\nAccept-Encoding: br\r\n", "\r\nTe: trailers\r\n", "\r\nCookie: a=1\r\n",
			},
		},
		{
			[]string{"OPTIONS * HTTP/1.1", "Host: web.localhost", "Connection: close"},
			[]string{"OPTIONS * HTTP/1.1\r\n", "\r\nX-Forwarded-For: 127.0.0.1\r\n"},
		},
		{
			[]string{"GET / HTTP/1.1", "Host: web.localhost", "Upgrade: websocket", "Connection: Upgrade", "sec-websocket-key: k", "Sec-WebSocket-Version: 13"},
			[]string{"\r\nConnection: Upgrade\r\n", "\r\nUpgrade: websocket\r\n", "\r\nSec-WebSocket-Key: k\r\n", "\r\nSec-WebSocket-Version: 13\r\n"},
		},
		{
			[]string{"GET http://web.localhost/as-a-proxy HTTP/1.1", "Host: other", "Connection: close"},
			[]string{"GET /as-a-proxy HTTP/1.1\r\n", "\r\nHost: web.localhost\r\n"},
		},
		{
			[]string{"GET /old HTTP/1.0"},
			[]string{"GET /old HTTP/1.1\r\n"},
		},
	} {
		conn, err := net.Dial("tcp", f.addr)
		must(t, err)
		_ = conn.SetDeadline(time.Now().Add(limit))
		_, err = io.WriteString(conn, strings.Join(c.say, "\r\n")+"\r\n\r\n")
		must(t, err)
		head := wait(t, asked)
		for _, want := range c.want {
			if !strings.Contains(head, want) {
				t.Errorf("%q: the guest was asked %q, not %q", c.say[0], head, want)
			}
		}
		for _, name := range []string{"User-Agent", "Accept-Encoding"} {
			if strings.Contains(head, name) && !strings.Contains(strings.Join(c.say, ""), name) {
				t.Errorf("the guest was asked %q, of which the client said nothing: %q", name, head)
			}
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // conn is closed
		must(t, err)
		body := make([]byte, 6)
		_, err = io.ReadFull(res.Body, body)
		must(t, err)
		if res.StatusCode != 299 || res.Header.Get("X-Odd_name") != "1" || !slices.Equal(res.Header["X-Twice"], []string{"a", "b"}) || len(res.Cookies()) != 2 {
			t.Errorf("%s %v", res.Status, res.Header)
		}
		if guess, ok := res.Header["Content-Type"]; ok {
			t.Errorf("Content-Type was guessed: %q", guess)
		}
		must(t, conn.Close())
	}
	f.settle(t)
}

// TestFrontInformational passes on what comes before an answer.
func TestFrontInformational(t *testing.T) {
	f := serving(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		body, err := io.ReadAll(r.Body) // asks for it, with 100
		must(t, err)
		w.Header().Set("Content-Type", "text/x-own")
		_, _ = io.WriteString(w, strconv.Itoa(len(body)))
	})
	conn, err := net.Dial("tcp", f.addr)
	must(t, err)
	defer conn.Close() //nolint:errcheck // a test's
	_ = conn.SetDeadline(time.Now().Add(limit))
	_, err = io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	must(t, err)
	b := bufio.NewReader(conn)
	statuses := func() (seen []int) {
		for {
			res, err := http.ReadResponse(b, nil) //nolint:bodyclose // conn is closed
			must(t, err)
			seen = append(seen, res.StatusCode)
			if res.StatusCode == http.StatusContinue {
				_, err = io.WriteString(conn, "hello") // nobody has asked for it before
				must(t, err)
			}
			if res.StatusCode >= http.StatusOK {
				body, err := io.ReadAll(res.Body)
				if err != nil || string(body) != "5" || res.Header.Get("Content-Type") != "text/x-own" {
					t.Errorf("%q, %v, %v", body, res.Header, err)
				}
				return seen
			}
		}
	}()
	if !slices.Contains(statuses, http.StatusEarlyHints) || !slices.Contains(statuses, http.StatusContinue) {
		t.Errorf("the client was answered %v", statuses)
	}
}

// TestReuse has requests share connections to the guest, as far as they can.
func TestReuse(t *testing.T) {
	var proto sync.Map
	f := serving(t, func(_ http.ResponseWriter, r *http.Request) { proto.Store(r.Proto, true) })
	h2 := f.client(true)
	defer h2.CloseIdleConnections()
	for range 20 {
		if a := f.get(t, "http://web.localhost/"); a.status != http.StatusOK {
			t.Error(a)
		}
		res, err := h2.Get("http://web.localhost/")
		must(t, err)
		must(t, res.Body.Close())
	}
	if n := f.stub.dials.Load(); n != 2 {
		t.Errorf("%d connections to the guest, want one for each version of HTTP", n)
	}
	if n := f.settle(t); n != 40 {
		t.Errorf("held %d times", n)
	}
	for _, want := range []string{"HTTP/1.1", "HTTP/2.0"} {
		if _, ok := proto.Load(want); !ok {
			t.Errorf("the guest never spoke %s", want)
		}
	}
	// Another instance has connections of its own, though its port is the same.
	f.stub.add("other", http80(80))
	f.get(t, "http://other.localhost/")
	if n := f.stub.dials.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
	// What is kept of an instance goes with it, when there is another.
	f.stub.mu.Lock()
	f.stub.views = f.stub.views[1:]
	f.stub.mu.Unlock()
	f.stub.add("third", http80(80))
	f.get(t, "http://third.localhost/")
	if n := len(f.guests); n != 2 {
		t.Errorf("%d instances are known", n)
	}
}

// TestStaleConnections has a guest close what is kept for later, as servers do.
func TestStaleConnections(t *testing.T) {
	s := &stubInstances{programs: map[uint16]string{80: program(t, func(c *net.TCPConn) {
		_, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})}}
	s.add("web", http80(80))
	f := newTestFront(t, s)
	for range 50 {
		if a := f.get(t, "http://web.localhost/"); a.status != http.StatusOK {
			t.Error(a)
		}
	}
}

// TestClientGoes leaves requests in the middle: the guest is told, and let go once.
func TestClientGoes(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, when := range []string{"waiting", "reading", "sending"} {
			t.Run(fmt.Sprint("http2=", http2, ",", when), func(t *testing.T) {
				began, ended := make(chan bool, 1), make(chan struct{})
				f := serving(t, func(w http.ResponseWriter, r *http.Request) {
					defer close(ended)
					if when == "reading" {
						_, _ = w.Write([]byte("x"))
						_ = http.NewResponseController(w).Flush()
					}
					began <- true
					if when == "sending" {
						_, _ = io.Copy(io.Discard, r.Body)
					} else {
						<-r.Context().Done()
					}
				})
				c := f.client(http2)
				defer c.CloseIdleConnections()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var body io.Reader = http.NoBody
				over := func() {}
				if when == "sending" {
					pipe, say := io.Pipe()
					over = func() { _ = say.Close() }
					go func() { _, _ = say.Write([]byte("x")) }()
					body = pipe
				}
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://web.localhost/", body)
				must(t, err)
				done := make(chan struct{})
				go func() {
					defer close(done)
					res, err := c.Do(r)
					if err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
				}()
				wait(t, began)
				if n := f.stub.held.Load(); n != 1 {
					t.Errorf("%d holds", n)
				}
				cancel()
				wait(t, ended)
				over()
				wait(t, done)
				if n := f.settle(t); n != 1 {
					t.Errorf("released %d times", n)
				}
			})
		}
	}
}

// TestAnswerBreaksOff has a guest end in the middle of its answer: the client must not
// take what it has for all.
func TestAnswerBreaksOff(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprint("http2=", http2), func(t *testing.T) {
			f := serving(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write(make([]byte, 100<<10))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			})
			c := f.client(http2)
			defer c.CloseIdleConnections()
			res, err := c.Get("http://web.localhost/")
			must(t, err)
			defer res.Body.Close() //nolint:errcheck // a test's
			if n, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Errorf("%d bytes that look like all", n)
			}
			f.settle(t)
		})
	}
}

func TestFrontMany(t *testing.T) {
	all := make(chan struct{})
	var once sync.Once
	var mu sync.Mutex
	n := 0
	f := serving(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if n++; n == 500 {
			once.Do(func() { close(all) })
		}
		mu.Unlock()
		<-all // all are there at once
		_, _ = io.WriteString(w, r.URL.Path)
	})
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			if a := f.get(t, fmt.Sprintf("http://web.localhost/%d", i)); a.status != http.StatusOK || a.body != fmt.Sprintf("/%d", i) {
				t.Error(a)
			}
		})
	}
	wg.Wait()
	if n := f.settle(t); n != 500 {
		t.Errorf("held %d times", n)
	}
}

func TestFrontLeavesNothing(t *testing.T) {
	f := serving(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") })
	times := 10000
	if testing.Short() {
		times = 500
	}
	noGrowth(t, times, func() { f.get(t, "http://web.localhost/") })
	if n := f.stub.dials.Load(); n != 1 {
		t.Errorf("%d connections to the guest", n)
	}
}

// TestFrontCloses closes a router that is in the middle of all sorts of things.
func TestFrontCloses(t *testing.T) {
	began := make(chan bool, 3)
	f := serving(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		began <- true
		<-r.Context().Done()
	})
	var wg sync.WaitGroup
	for _, http2 := range []bool{false, true} {
		c := f.client(http2)
		defer c.CloseIdleConnections()
		wg.Go(func() {
			res, err := c.Get("http://web.localhost/")
			if err != nil {
				return
			}
			defer res.Body.Close() //nolint:errcheck // a test's
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("an answer that was broken off looks complete")
			}
		})
		wait(t, began)
	}
	must(t, f.Close())
	if n := f.stub.held.Load(); n != 0 {
		t.Errorf("%d requests go on behind Close", n)
	}
	wg.Wait()
	if _, err := net.Dial("tcp", f.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("it is still there: %v", err)
	}
}

// TestFrontPatience waits for what does not come.
func TestFrontPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stubInstances{hang: true}
		v := s.add("web", http80(80))
		f := NewFront(s, nil)
		began := time.Now()
		if _, err := f.awake(t.Context(), *v); fault.KindOf(err) != fault.Timeout || time.Since(began) != DefaultWake {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		began = time.Now()
		ctx := context.WithValue(t.Context(), passageKey{}, &passage{awake: deaf{}, port: 80})
		if _, err := dial(ctx, "", ""); fault.KindOf(ofGuest(err)) != fault.Timeout || time.Since(began) != DefaultWake {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// deaf is a guest that does not answer.
type deaf struct{ Awake }

func (deaf) Dial(ctx context.Context, _ uint16) (instance.GuestConn, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}
