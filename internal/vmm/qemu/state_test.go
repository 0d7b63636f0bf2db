package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// sampleState is as long as a state with memory: more than is held back.
func sampleState(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < n; i += 64 { // half of it repeats
		for j := i; j < min(i+32, n); j++ {
			b[j] = byte(r.Uint32())
		}
	}
	copy(b, "QEVM")
	return b
}

// written returns a state as a save writes it.
func written(tb testing.TB, state []byte, compress bool) ([]byte, vmm.File) {
	tb.Helper()
	var file bytes.Buffer
	to := newSink(&file, true)
	if err := copyState(to, bytes.NewReader(state), compress); err != nil {
		tb.Fatal(err)
	}
	return file.Bytes(), vmm.File{Path: "state", Size: size.Bytes(to.n), Digest: to.sums[true].Digest()}
}

func TestState(t *testing.T) {
	for _, n := range []int{4, 1000, lastPart, lastPart + 1, 5*lastPart + 17} {
		for _, compress := range []bool{false, true} {
			state := sampleState(n)
			b, f := written(t, state, compress)
			if int(f.Size) != len(b) || compress && n > 1000 && len(b) >= n {
				t.Errorf("%d bytes became %d, told as %d", n, len(b), f.Size)
			}
			var got bytes.Buffer
			if err := feed(t.Context(), &got, bytes.NewReader(b), content{&f, true, true}); err != nil || !bytes.Equal(got.Bytes(), state) {
				t.Errorf("%d bytes, compressed %v: %d came back, %v", n, compress, got.Len(), err)
			}
		}
	}
}

// TestStateDamaged checks that QEMU never gets the end of a state that was changed.
func TestStateDamaged(t *testing.T) {
	state := sampleState(3 * lastPart)
	for _, compress := range []bool{false, true} {
		good, f := written(t, state, compress)
		check := func(what string, b []byte) {
			t.Helper()
			var got bytes.Buffer
			err := feed(t.Context(), &got, bytes.NewReader(b), content{&f, true, true})
			if !errors.Is(err, vmm.ErrDamaged) || got.Len() > len(state)-lastPart/2 {
				t.Errorf("compressed %v, %s: %v, and %d bytes of %d", compress, what, err, got.Len(), len(state))
			}
		}
		for _, at := range []int{0, 3, 4, 100, len(good) / 2, len(good) - 5, len(good) - 1} {
			b := bytes.Clone(good)
			b[at] ^= 1
			check("changed", b)
			check("short", good[:at])
		}
		var got bytes.Buffer
		twice := io.MultiReader(bytes.NewReader(good), bytes.NewReader(good))
		if err := feed(t.Context(), &got, twice, content{&f, true, true}); err != nil || !bytes.Equal(got.Bytes(), state) {
			t.Errorf("what follows a state was read: %d bytes, %v", got.Len(), err)
		}
	}
}

type brokenPipe struct{ after int }

func (p *brokenPipe) Write(b []byte) (int, error) {
	if p.after -= len(b); p.after < 0 {
		return 0, syscall.EPIPE
	}
	return len(b), nil
}

// TestStateRefused feeds QEMUs that take no more. One that was given something
// damaged is not to blame.
func TestStateRefused(t *testing.T) {
	good, f := written(t, sampleState(8*lastPart), false)
	for _, after := range []int{0, 2 * lastPart, 8*lastPart - 1} {
		if err := feed(t.Context(), &brokenPipe{after}, bytes.NewReader(good), content{&f, true, true}); !errors.Is(err, syscall.EPIPE) || errors.Is(err, vmm.ErrDamaged) {
			t.Errorf("after %d bytes: %v", after, err)
		}
	}
	bad := bytes.Clone(good)
	bad[0] ^= 1
	if err := feed(t.Context(), &brokenPipe{}, bytes.NewReader(bad), content{&f, true, true}); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := feed(ctx, &brokenPipe{}, bytes.NewReader(bad), content{&f, true, true}); !errors.Is(err, cause) {
		t.Errorf("canceled: %v", err)
	}
}

func TestOpenState(t *testing.T) {
	b, f := written(t, sampleState(5000), false)
	small := newSum(false)
	_, _ = small.Write(b)
	f.Digest = small.Digest()
	f.Path = filepath.Join(t.TempDir(), "state")
	for name, test := range map[string]struct {
		file []byte
		want error
	}{
		"good": {b, nil}, "short": {b[:100], vmm.ErrDamaged}, "long": {append(bytes.Clone(b), 1), vmm.ErrDamaged},
		"changed": {append(bytes.Clone(b[:4999]), b[4999]^1), vmm.ErrDamaged}, "missing": {nil, vmm.ErrDamaged},
	} {
		if test.file == nil {
			_ = os.Remove(f.Path)
		} else if err := os.WriteFile(f.Path, test.file, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := openState(&f, false)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if err == nil {
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	}
}

func FuzzFeed(f *testing.F) {
	raw, file := written(f, []byte("QEVM and more"), false)
	packed, _ := written(f, []byte("QEVM and more"), true)
	f.Add(raw)
	f.Add(packed)
	f.Add(packed[:7])
	f.Add([]byte{})
	f.Add(zstdMagic)
	f.Fuzz(func(t *testing.T, b []byte) {
		var got bytes.Buffer
		err := feed(t.Context(), &got, bytes.NewReader(b), content{&file, true, true})
		if err == nil && !bytes.HasPrefix(b, raw) {
			t.Errorf("%q was fed to QEMU", b)
		}
		if err != nil && (!errors.Is(err, vmm.ErrDamaged) || got.Len() > 0 && got.Len() < lastPart) {
			t.Errorf("%v, and %d bytes", err, got.Len())
		}
	})
}
