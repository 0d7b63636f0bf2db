package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

const testDisk = 3*perL1 + 5*cluster + 512

// written returns an overlay in which a VMM has written to some places: a cluster of
// every byte, or zeros where the byte is 0.
func written(tb testing.TB, at map[int64]byte) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "overlay")
	if err := Create(path, testDisk, vmm.Layer{Path: "base", Format: vmm.Raw}); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	be := binary.BigEndian
	const firstTable = 3 * cluster
	allocate := func() uint64 {
		offset := len(b)
		b = append(b, make([]byte, cluster)...)
		return uint64(offset)
	}
	for place, c := range at {
		l1 := b[firstTable+8*(place/perL1):]
		if be.Uint64(l1) == 0 {
			offset := allocate()
			be.PutUint64(b[firstTable+8*(place/perL1):], offset|1<<63)
		}
		second := be.Uint64(b[firstTable+8*(place/perL1):]) & offsetBits
		entry := second + uint64(8*(place%perL1/cluster))
		if c == 0 {
			be.PutUint64(b[entry:], zeroFlag)
			continue
		}
		data := allocate()
		copy(b[data:], bytes.Repeat([]byte{c}, cluster))
		be.PutUint64(b[entry:], data|1<<63)
	}
	return b
}

// sparse is a disk of which some places have other bytes than zeros.
type sparse struct{ at map[int64][]byte }

func (s *sparse) WriteAt(b []byte, at int64) (int, error) {
	s.at[at] = bytes.Clone(b)
	return len(b), nil
}

func (s *sparse) ReadAt(b []byte, at int64) (int, error) {
	return copy(b, append(bytes.Clone(s.at[at]), make([]byte, len(b))...)), nil
}

func TestApply(t *testing.T) {
	const last = 3*perL1 + 5*cluster
	to := &sparse{map[int64][]byte{
		0:           bytes.Repeat([]byte{9}, cluster),
		2 * cluster: bytes.Repeat([]byte{9}, cluster),
		7 * cluster: bytes.Repeat([]byte{9}, cluster),
	}}
	overlay := written(t, map[int64]byte{0: 1, 2 * cluster: 0, 3 * cluster: 0, perL1: 2, last: 3})
	if err := apply(t.Context(), to, bytes.NewReader(overlay), testDisk); err != nil {
		t.Fatal(err)
	}
	for place, want := range map[int64]byte{0: 1, 2 * cluster: 0, 7 * cluster: 9, perL1: 2} {
		if b := to.at[place]; len(b) != cluster || b[0] != want || b[cluster-1] != want {
			t.Errorf("at %d: %d bytes of %d, not %d", place, len(b), b[0], want)
		}
	}
	if _, filled := to.at[3*cluster]; filled {
		t.Error("a hole was filled with zeros")
	}
	if b := to.at[last]; len(b) != 512 {
		t.Errorf("%d bytes at the end of the disk", len(b))
	}
	if len(to.at) != 5 {
		t.Errorf("%d places were written to", len(to.at))
	}
}

func TestApplyRefuses(t *testing.T) {
	whole := func() []byte { return written(t, map[int64]byte{0: 1}) }
	be := binary.BigEndian
	for name, spoil := range map[string]func(b []byte) []byte{
		"another magic":      func(b []byte) []byte { b[0] = 'X'; return b },
		"larger clusters":    func(b []byte) []byte { be.PutUint32(b[20:], 21); return b },
		"encryption":         func(b []byte) []byte { be.PutUint32(b[32:], 1); return b },
		"data elsewhere":     func(b []byte) []byte { be.PutUint64(b[72:], 4); return b },
		"a short table":      func(b []byte) []byte { be.PutUint32(b[36:], 1); return b },
		"a huge table":       func(b []byte) []byte { be.PutUint32(b[36:], 1<<31); return b },
		"a table outside":    func(b []byte) []byte { be.PutUint64(b[40:], 1<<50); return b },
		"a subtable outside": func(b []byte) []byte { be.PutUint64(b[3*cluster:], 1<<50); return b },
		"compression":        func(b []byte) []byte { be.PutUint64(b[4*cluster:], compressed|512); return b },
		"a cut header":       func(b []byte) []byte { return b[:50] },
		"nothing":            func([]byte) []byte { return nil },
	} {
		to := &sparse{map[int64][]byte{}}
		if err := apply(t.Context(), to, bytes.NewReader(spoil(whole())), testDisk); !errors.Is(err, ErrNot) {
			t.Errorf("%s: %v", name, err)
		}
	}
	to := &sparse{map[int64][]byte{}}
	if err := apply(t.Context(), to, bytes.NewReader(whole()), testDisk-512); !errors.Is(err, ErrNot) {
		t.Errorf("on a smaller disk: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("changed my mind")
	cancel(cause)
	if err := apply(ctx, to, bytes.NewReader(whole()), testDisk); !errors.Is(err, cause) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// bounded fails the test when something is written outside of the disk.
type bounded struct {
	t    *testing.T
	disk int64
}

func (b bounded) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > b.disk {
		b.t.Fatalf("%d bytes at %d of a disk of %d", len(p), at, b.disk)
	}
	return len(p), nil
}

func (b bounded) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

func FuzzApply(f *testing.F) {
	f.Add(written(f, map[int64]byte{0: 1, cluster: 0, perL1: 2}))
	f.Add(written(f, nil)[:4*cluster])
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = apply(t.Context(), bounded{t, testDisk}, bytes.NewReader(b), size.Bytes(testDisk)) // only what it does counts
	})
}
