package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/xfeldman/aegisvm/internal/size"
)

// pipe returns an archive that is made while it is read, and what ends it.
func pipe(tb testing.TB, fill func(*tar.Writer) error) (io.Reader, func()) {
	tb.Helper()
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		tw := tar.NewWriter(w)
		_ = w.CloseWithError(errors.Join(fill(tw), tw.Close()))
	})
	return r, func() {
		_ = r.Close()
		wg.Wait()
	}
}

// peakOf returns by how much the heap has grown at most while do ran.
func peakOf(do func()) int64 {
	heap := func() int64 {
		m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(m)
		return int64(m[0].Value.Uint64())
	}
	runtime.GC()
	before := heap()
	peak := before
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
				peak = max(peak, heap())
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	do()
	close(stop)
	<-done
	return peak - before
}

// prose is data that compresses as text and programs do, to less than half.
func prose(seed uint64, n int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = []byte(strconv.FormatUint(random.Uint64()>>(random.Uint32()%48), 36) + " ")
	}
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(b, words[random.Uint32()%uint32(len(words))]...)
	}
	return b[:n]
}

// bigArchive writes a root file system of files of 4 MB, as many streams of gzip: the
// data is compressed once.
func bigArchive(tb testing.TB, path string, total size.Bytes) {
	tb.Helper()
	const each = 4 << 20
	pack := func(data []byte) []byte {
		var buf bytes.Buffer
		z, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		if err != nil {
			tb.Fatal(err)
		}
		_, err = z.Write(data)
		if err := errors.Join(err, z.Close()); err != nil {
			tb.Fatal(err)
		}
		return buf.Bytes()
	}
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	data := pack(prose(1, each))
	for i := range int(total / each) {
		var head bytes.Buffer
		err := tar.NewWriter(&head).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/f%d", i), Mode: 0o644, Size: each, Format: tar.FormatPAX})
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := f.Write(append(pack(head.Bytes()), data...)); err != nil {
			tb.Fatal(err)
		}
	}
	_, err = f.Write(pack(make([]byte, 1024)))
	if err := errors.Join(err, f.Close()); err != nil {
		tb.Fatal(err)
	}
}

// TestMemoryIsFlat imports an image that is much larger than what it may hold.
func TestMemoryIsFlat(t *testing.T) {
	total := 32 * size.MiB
	if os.Getenv("AEGIS_STRESS") == "1" {
		total = 2 * size.GiB
	}
	s := newStore(t)
	path := filepath.Join(t.TempDir(), "big.tar.gz")
	bigArchive(t, path, total)
	begin := time.Now()
	peak := peakOf(func() {
		if _, err := s.Import(t.Context(), path, "", quiet); err != nil {
			t.Error(err)
		}
	})
	took, least := time.Since(begin), floor(t, path, filepath.Join(t.TempDir(), "out"))
	t.Logf("%v took %v and %v of memory; to read, decompress and write it once %v: %.2f of it", total, took, size.Bytes(peak), least, float64(took)/float64(least))
	if peak > 16<<20 {
		t.Errorf("an image of %v took %v of memory", total, size.Bytes(peak))
	}
}

// floor reads, decompresses and writes an archive once.
func floor(tb testing.TB, from, to string) time.Duration {
	tb.Helper()
	begin := time.Now()
	in, err := os.Open(from)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	z, err := gzip.NewReader(in)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := os.Create(to)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, z, make([]byte, 1<<20))
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		tb.Fatal(err)
	}
	took := time.Since(begin)
	if err := os.Remove(to); err != nil {
		tb.Fatal(err)
	}
	return took
}

// BenchmarkImport measures an import beside its floor.
func BenchmarkImport(b *testing.B) {
	const total = 256 * size.MiB
	dir := b.TempDir()
	path := filepath.Join(dir, "big.tar.gz")
	bigArchive(b, path, total)
	s := newStore(b)
	b.SetBytes(int64(total))
	var least time.Duration
	for b.Loop() {
		if _, err := s.Import(b.Context(), path, "", quiet); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := s.Remove(b.Context(), "big", false); err != nil {
			b.Fatal(err)
		}
		least += floor(b, path, filepath.Join(dir, "out"))
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(least), "of-floor")
}
