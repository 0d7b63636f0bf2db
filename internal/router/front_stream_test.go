package router

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestEvents reads each event before the next is sent.
func TestEvents(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprint("http2=", http2), func(t *testing.T) {
			more := make(chan bool)
			f := serving(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.WriteHeader(http.StatusOK)
				must(t, http.NewResponseController(w).Flush())
				for range more {
					_, _ = io.WriteString(w, "data: x\n\n")
					must(t, http.NewResponseController(w).Flush())
				}
			})
			c := f.client(http2)
			defer c.CloseIdleConnections()
			res, err := c.Get("http://web.localhost/events") // before the first event
			must(t, err)
			defer res.Body.Close() //nolint:errcheck // a test's
			for range 20 {
				more <- true
				got := make([]byte, 9)
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "data: x\n\n" {
					t.Errorf("%q, %v", got, err)
				}
				if n := f.stub.held.Load(); n != 1 {
					t.Errorf("%d holds during a stream", n)
				}
			}
			close(more)
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
				t.Errorf("%q, %v", rest, err)
			}
			if n := f.settle(t); n != 1 {
				t.Errorf("released %d times", n)
			}
		})
	}
}

// TestSlowAnswer has a guest say how long its answer is, and take its time.
func TestSlowAnswer(t *testing.T) {
	more := make(chan bool)
	f := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "3")
		for range 3 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			<-more
		}
	})
	res, err := f.http.Get("http://web.localhost/")
	must(t, err)
	defer res.Body.Close() //nolint:errcheck // a test's
	for range 3 {
		_, err := io.ReadFull(res.Body, make([]byte, 1))
		must(t, err)
		more <- true
	}
}

// TestBothWays talks through the bodies of one request and its answer, by turns.
func TestBothWays(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprint("http2=", http2), func(t *testing.T) {
			f := serving(t, func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				_ = rc.EnableFullDuplex() // HTTP/2 has it
				w.Header().Set("Trailer", "Grpc-Status")
				w.WriteHeader(http.StatusOK)
				must(t, rc.Flush())
				buf := make([]byte, 100)
				for {
					n, err := r.Body.Read(buf)
					_, _ = w.Write(bytes.ToUpper(buf[:n]))
					_ = rc.Flush()
					if err != nil {
						break
					}
				}
				w.Header().Set("Grpc-Status", "0")
				w.Header().Set(http.TrailerPrefix+"Grpc-Message", r.Proto)
			})
			c := f.client(http2)
			defer c.CloseIdleConnections()
			body, say := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web.localhost/", body)
			must(t, err)
			r.Header.Set("Te", "trailers")
			res, err := c.Do(r) // its body goes on
			must(t, err)
			defer res.Body.Close() //nolint:errcheck // a test's
			for i := range 50 {
				_, err := fmt.Fprintf(say, "turn %03d", i)
				must(t, err)
				got := make([]byte, 8)
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != fmt.Sprintf("TURN %03d", i) {
					t.Fatalf("turn %d: %q, %v", i, got, err)
				}
			}
			must(t, say.Close())
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
				t.Errorf("%q, %v", rest, err)
			}
			want := "HTTP/1.1"
			if http2 {
				want = "HTTP/2.0"
			}
			if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != want {
				t.Errorf("trailers %v", res.Trailer)
			}
			f.settle(t)
		})
	}
}

// TestTrailersOnly is how a gRPC server refuses: no body, and the status behind it.
func TestTrailersOnly(t *testing.T) {
	f := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "12")
	})
	c := f.client(true)
	defer c.CloseIdleConnections()
	res, err := c.Post("http://web.localhost/", "application/grpc", strings.NewReader("\x00\x00\x00\x00\x00"))
	must(t, err)
	body, err := io.ReadAll(res.Body)
	must(t, errors.Join(err, res.Body.Close()))
	if len(body) != 0 || res.Trailer.Get("Grpc-Status") != "12" || res.Header.Get("Content-Type") != "application/grpc" {
		t.Errorf("%q, %v, %v", body, res.Header, res.Trailer)
	}
}

// TestBodies sends and gets much, in both versions of HTTP.
func TestBodies(t *testing.T) {
	large := noise(6 << 20)
	sum := sha256.Sum256(large)
	for _, http2 := range []bool{false, true} {
		for _, length := range []bool{false, true} {
			t.Run(fmt.Sprint("http2=", http2, ",length=", length), func(t *testing.T) {
				f := serving(t, func(w http.ResponseWriter, r *http.Request) {
					h := sha256.New()
					_, err := io.Copy(h, r.Body)
					if err != nil || !bytes.Equal(h.Sum(nil), sum[:]) {
						t.Errorf("upload: %v", err)
					}
					if known := r.ContentLength == int64(len(large)); known != length {
						t.Errorf("length %d", r.ContentLength)
					}
					if length {
						w.Header().Set("Content-Length", strconv.Itoa(len(large)))
					}
					_, _ = w.Write(large)
				})
				c := f.client(http2)
				defer c.CloseIdleConnections()
				var body io.Reader = bytes.NewReader(large)
				if !length {
					body = io.MultiReader(body)
				}
				res, err := c.Post("http://web.localhost/", "application/octet-stream", body)
				must(t, err)
				h := sha256.New()
				_, err = io.Copy(h, res.Body)
				if err = errors.Join(err, res.Body.Close()); err != nil || !bytes.Equal(h.Sum(nil), sum[:]) {
					t.Errorf("download: %v", err)
				}
				if known := res.ContentLength == int64(len(large)); known != length {
					t.Errorf("length %d", res.ContentLength)
				}
			})
		}
	}
}
