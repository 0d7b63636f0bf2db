package ring

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestBytesComeOutAsTheyWentIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := make([]byte, 100_000)
		for i := range in {
			in[i] = byte(rand.Uint32())
		}
		b := New(97)
		go func() {
			for rest := in; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(300))
				if w, err := b.Write(rest[:n]); w != n || err != nil {
					t.Errorf("Write = %d, %v", w, err)
				}
				rest = rest[n:]
			}
			b.Close(nil)
		}()
		out, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("read %d bytes, %v; want the %d written", len(out), err, len(in))
		}
	})
}

func TestDeadlinesAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(4)
		start := time.Now()
		b.SetReadDeadline(start.Add(time.Second))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Read = %v after %v", err, time.Since(start))
		}
		b.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := b.Write([]byte("123456")); n != 4 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %d, %v", n, err)
		}
		b.SetWriteDeadline(time.Time{})
		done := make(chan error)
		go func() { _, err := b.Write([]byte("7")); done <- err }()
		synctest.Wait()
		b.SetWriteDeadline(time.Unix(1, 0)) // frees a writer that is stuck
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stuck Write = %v", err)
		}
		b.Close(io.ErrNoProgress)
		if _, err := b.Write([]byte("8")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Write after Close = %v", err)
		}
		got, err := io.ReadAll(b)
		if string(got) != "1234" || !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("ReadAll = %q, %v", got, err)
		}
	})
}
