package nfs

import (
	"fmt"
	"testing"
	"time"
)

// The cost of operations at the server, over loopback.
func BenchmarkOperations(b *testing.B) {
	dir := b.TempDir()
	r := serve(b, Options{}, Export{Name: "/", Dir: dir, ID: 7})
	c := r.client()
	root := c.mnt("/")
	h, _, _ := c.create(root, "file", createGuarded, mode(0o644))
	data := make([]byte, MaxIO)
	must(b, "write", c.write(h, 0, unstable, data))
	b.Run("null", func(b *testing.B) {
		for b.Loop() {
			c.rpc(programNFS, version3, procNull, nil)
		}
	})
	b.Run("getattr", func(b *testing.B) {
		for b.Loop() {
			_, st := c.getattr(h)
			must(b, "getattr", st)
		}
	})
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			_, st := c.lookup(root, "file")
			must(b, "lookup", st)
		}
	})
	b.Run("create,write,remove", func(b *testing.B) {
		var spent [3]time.Duration
		i := 0
		for b.Loop() {
			name := fmt.Sprint("f", i)
			i++
			begun := time.Now()
			n, _, _ := c.create(root, name, createUnchecked, mode(0o644))
			made := time.Now()
			must(b, "write", c.write(n, 0, fileSync, data[:200]))
			wrote := time.Now()
			must(b, "remove", c.remove(root, name))
			for j, d := range []time.Duration{made.Sub(begun), wrote.Sub(made), time.Since(wrote)} {
				spent[j] += d
			}
		}
		for j, name := range []string{"create", "write", "remove"} {
			b.ReportMetric(float64(spent[j].Microseconds())/float64(b.N), name+"-us")
		}
	})
	b.Run("read4k", func(b *testing.B) {
		for b.Loop() {
			_, _, st := c.read(h, 0, 4096)
			must(b, "read", st)
		}
	})
	b.Run("read1m", func(b *testing.B) {
		b.SetBytes(MaxIO)
		for b.Loop() {
			_, _, st := c.read(h, 0, MaxIO)
			must(b, "read", st)
		}
	})
	b.Run("write1m", func(b *testing.B) {
		b.SetBytes(MaxIO)
		for b.Loop() {
			must(b, "write", c.write(h, 0, unstable, data))
		}
	})
}
