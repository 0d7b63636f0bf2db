package ram

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// memoryOf makes a file of memory with some of its bytes.
func memoryOf(t *testing.T, size int64, data map[int64][]byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, b := range data {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func stored(t *testing.T, m *os.File) vmm.File {
	t.Helper()
	f, err := Store(t.Context(), m, filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func loaded(t *testing.T, f vmm.File) ([]byte, error) {
	t.Helper()
	i, err := Open(f)
	if err != nil {
		return nil, err
	}
	defer i.Close() //nolint:errcheck // only read
	to := memoryOf(t, int64(i.Size()), nil)
	if err := i.Load(t.Context(), to); err != nil {
		return nil, err
	}
	return contents(t, to), nil
}

func contents(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32()) | 1
	}
	return b
}

var shapes = map[string]struct {
	size int64
	data map[int64][]byte
	most int64 // bytes of data in the image
}{
	"nothing":           {8 << 20, nil, 0},
	"a page":            {8 << 20, map[int64][]byte{5 << 20: noise(page)}, page},
	"a byte":            {8 << 20, map[int64][]byte{5<<20 + 77: {1}}, page},
	"everything":        {3 << 20, map[int64][]byte{0: noise(3 << 20)}, 3 << 20},
	"across blocks":     {8 << 20, map[int64][]byte{block - page: noise(3 * page), 3*block - 1: noise(2)}, 5 * page},
	"the last":          {8<<20 + page, map[int64][]byte{8 << 20: noise(page)}, page},
	"zeros written":     {8 << 20, map[int64][]byte{0: make([]byte, 2<<20), 3 << 20: noise(page)}, page},
	"zeros in between":  {8 << 20, map[int64][]byte{0: append(append(noise(page), make([]byte, 64*page)...), noise(page)...)}, 2 * page},
	"small gaps":        {8 << 20, map[int64][]byte{0: append(append(noise(page), make([]byte, 2*page)...), noise(page)...)}, 4 * page},
	"end of no page":    {page + 100, map[int64][]byte{page: noise(100)}, 100},
	"no memory":         {0, nil, 0},
	"many little pages": {4 << 20, func() map[int64][]byte { return every(32 * page) }(), 32 * page},
}

func every(step int64) map[int64][]byte {
	m := map[int64][]byte{}
	for at := int64(0); at < 4<<20; at += step {
		m[at] = noise(page)
	}
	return m
}

func TestImage(t *testing.T) {
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			m := memoryOf(t, s.size, s.data)
			f := stored(t, m)
			got, err := loaded(t, f)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, contents(t, m)) {
				t.Error("the memory is not what it was")
			}
			i, err := Open(f)
			if err != nil {
				t.Fatal(err)
			}
			if i.table.bytes() > s.most || int64(f.Size) < i.table.bytes() {
				t.Errorf("%d bytes of data, not at most %d; size %d", i.table.bytes(), s.most, f.Size)
			}
			_ = i.Close()
			// What it is does not depend on where zeros were written.
			dense := memoryOf(t, s.size, map[int64][]byte{0: contents(t, m)})
			if again := stored(t, dense); again.Digest != f.Digest {
				t.Error("the same memory has two digests")
			}
		})
	}
}

func TestDigestsDiffer(t *testing.T) {
	seen := map[string]string{}
	for name, s := range shapes {
		d := stored(t, memoryOf(t, s.size, s.data)).Digest
		if other := seen[d]; other != "" && name != "nothing" {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[d] = name
	}
}

// TestDamage changes every part of an image.
func TestDamage(t *testing.T) {
	m := memoryOf(t, 64<<10, map[int64][]byte{0: noise(page), 32 << 10: noise(2 * page)})
	f := stored(t, m)
	good, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte, data bool) {
		t.Helper()
		if err := os.WriteFile(f.Path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := loaded(t, f)
		switch {
		case data && !errors.Is(err, vmm.ErrDamaged):
			t.Errorf("%s: %v", what, err)
		case err == nil && !bytes.Equal(got, contents(t, m)):
			t.Errorf("%s: wrong memory", what)
		}
	}
	for at := 0; at < len(good); at += 61 {
		b := bytes.Clone(good)
		b[at] ^= 4
		check("a changed byte", b, good[at] != 0 || at >= 64<<10)
		check("a short file", good[:at], true)
	}
	check("a longer file", append(bytes.Clone(good), 0), true)
	if err := os.Remove(f.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := loaded(t, f); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestAnotherImage(t *testing.T) {
	f, g := stored(t, memoryOf(t, 1<<20, map[int64][]byte{0: noise(page)})), stored(t, memoryOf(t, 1<<20, map[int64][]byte{0: noise(2 * page)}))
	f.Path = g.Path
	if _, err := Open(f); !errors.Is(err, vmm.ErrDamaged) {
		t.Errorf("another image: %v", err)
	}
}

func TestStoreFails(t *testing.T) {
	m := memoryOf(t, 8<<20, map[int64][]byte{0: noise(8 << 20)})
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	path := filepath.Join(t.TempDir(), "image")
	if _, err := Store(ctx, m, path); !errors.Is(err, cause) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an image is left: %v", err)
	}
	f := stored(t, m)
	if _, err := Store(t.Context(), m, f.Path); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another image: %v", err)
	}
	if _, err := loaded(t, f); err != nil {
		t.Errorf("the image that was there: %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close() //nolint:errcheck // nothing can be written to it
	if _, err := store(t.Context(), m, full); err == nil {
		t.Error("stored on a full disk")
	}
	i, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close() //nolint:errcheck // only read
	if err := i.Load(ctx, memoryOf(t, int64(i.Size()), nil)); !errors.Is(err, cause) {
		t.Errorf("load canceled: %v", err)
	}
	if err := i.Load(t.Context(), full); err == nil {
		t.Error("loaded into a full disk")
	}
}

func FuzzTable(f *testing.F) {
	t := table{size: 3 * page, extents: []extent{{0, page, 1}, {2 * page, 100, 2}}}
	good := append(make([]byte, t.size), t.encode()...)
	f.Add(good)
	f.Add(good[t.size:])
	f.Add(t.encode()[:footerSize])
	f.Add((&table{}).encode())
	f.Add((&table{size: 1 << 50, extents: []extent{{1 << 49, page, 0}}}).encode())
	f.Add(append(make([]byte, page), (&table{size: page, extents: []extent{{page, 1, 0}}}).encode()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, sum, err := readTable(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		end := int64(0)
		for _, e := range got.extents {
			if e.offset < end || e.length <= 0 || e.length > block || e.offset+int64(e.length) > got.size {
				t.Fatalf("extent %+v after %d in %d", e, end, got.size)
			}
			end = e.offset + int64(e.length)
		}
		if encoded := got.encode(); !bytes.Equal(encoded, b[got.size:]) || digest(encoded) != sum {
			t.Error("a table that says something else")
		}
	})
}

// TestSum checks that a digest depends on the bytes, and not on how they came.
func TestSum(t *testing.T) {
	seen := map[string]int{}
	for _, n := range []int{0, 1, block - 1, block, block + 1, 3 * block} {
		b := noise(n)
		var whole, parts, changed Sum
		_, _ = whole.Write(b)
		for rest := b; len(rest) > 0; {
			part := rest[:min(len(rest), 100_003)]
			_, _ = parts.Write(part)
			rest = rest[len(part):]
		}
		if first := whole.Digest(); first != parts.Digest() || first != whole.Digest() {
			t.Errorf("%d bytes have two digests", n)
		}
		if other, ok := seen[whole.Digest()]; ok {
			t.Errorf("%d bytes and %d have one digest", n, other)
		}
		seen[whole.Digest()] = n
		if n > 0 {
			b[n/2] ^= 1
			_, _ = changed.Write(b)
			if changed.Digest() == whole.Digest() {
				t.Errorf("%d bytes: a change does not show", n)
			}
		}
	}
}
