package router

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
)

// BenchmarkDoor measures a door beside dialling its program directly: what a
// connection costs, what a round trip costs on one that is open, and what goes through.
func BenchmarkDoor(b *testing.B) {
	addr := program(b, func(c *net.TCPConn) { _ = c.SetDeadline(past.Add(1 << 62)); echo(c) })
	for _, way := range []struct{ name, addr string }{
		{"direct", addr},
		{"door", open(b, Doors{}, to(addr)).ln.Addr().String()},
	} {
		b.Run("connect/"+way.name, func(b *testing.B) {
			for b.Loop() {
				c, err := net.Dial("tcp", way.addr)
				must(b, err)
				roundTrip(b, c, make([]byte, 1))
				must(b, c.Close())
			}
		})
		b.Run("roundtrip/"+way.name, func(b *testing.B) {
			c, err := net.Dial("tcp", way.addr)
			must(b, err)
			for b.Loop() {
				roundTrip(b, c, make([]byte, 1))
			}
			must(b, c.Close())
		})
		b.Run("through/"+way.name, func(b *testing.B) {
			c, err := net.Dial("tcp", way.addr)
			must(b, err)
			block := make([]byte, 1<<20)
			b.SetBytes(int64(len(block)))
			back := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, c)
				back <- err
			}()
			for b.Loop() {
				_, err := c.Write(block)
				must(b, err)
			}
			must(b, c.(*net.TCPConn).CloseWrite())
			must(b, <-back)
			must(b, c.Close())
		})
	}
}

func roundTrip(b *testing.B, c net.Conn, msg []byte) {
	b.Helper()
	_, err := c.Write(msg)
	must(b, err)
	_, err = io.ReadFull(c, msg)
	must(b, err)
}

// BenchmarkFront measures requests through the router beside requests to the program
// directly, both over connections that are kept.
func BenchmarkFront(b *testing.B) {
	large := make([]byte, 16<<20)
	h := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			w.Header().Set("Content-Length", strconv.Itoa(len(large)))
			_, _ = w.Write(large)
			return
		}
		_, _ = io.WriteString(w, "x")
	}
	for _, http2 := range []bool{false, true} {
		f := serving(b, h)
		f.stub.quick = true
		for _, way := range []struct{ name, addr string }{{"direct", f.stub.programs[80]}, {"front", f.addr}} {
			c := (&front{addr: way.addr}).client(http2)
			for _, path := range []string{"small", "large"} {
				b.Run(fmt.Sprintf("http2=%v/%s/%s", http2, path, way.name), func(b *testing.B) {
					for b.Loop() {
						res, err := c.Get("http://web.localhost/" + path)
						must(b, err)
						n, err := io.Copy(io.Discard, res.Body)
						must(b, err)
						must(b, res.Body.Close())
						b.SetBytes(n)
					}
				})
			}
			c.CloseIdleConnections()
		}
	}
}
