package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/xfeldman/aegisvm/internal/size"
)

// What may stand in an entry of a table, beside the offset in the file.
const (
	offsetBits = 1<<56 - 1<<9
	compressed = 1 << 62
	zeroFlag   = 1 // of a cluster, in version 3
	dirtyBit   = 1 // of the incompatible features: reference counts may be wrong, which nobody needs to read
)

// Apply writes what an overlay has of its own over the disk in to, which is a raw file of at
// least its size. Applied to what the overlay lies on it gives what the overlay's disk
// holds. The file is read as hostile: a guest's VMM has written it.
func Apply(ctx context.Context, to *os.File, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	fi, err := to.Stat()
	if err == nil {
		err = apply(ctx, to, f, size.Bytes(fi.Size()))
	}
	if err != nil {
		return fmt.Errorf("read overlay %s: %w", path, err)
	}
	return nil
}

// target is a raw disk that is written to.
type target interface {
	io.ReaderAt
	io.WriterAt
}

func apply(ctx context.Context, to target, from io.ReaderAt, room size.Bytes) error {
	disk, first, err := tables(from)
	if err != nil {
		return err
	}
	if disk > room {
		return fmt.Errorf("%w: a disk of %v, larger than the %v that there are", ErrNot, disk, room)
	}
	a := &applier{to: to, from: from, disk: int64(disk), buf: make([]byte, cluster)}
	table := make([]byte, cluster)
	for i, entry := range first {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if entry&offsetBits == 0 {
			continue
		}
		if _, err := from.ReadAt(table, int64(entry&offsetBits)); err != nil {
			return fmt.Errorf("%w: table %d: %w", ErrNot, i, err)
		}
		if err := a.table(int64(i)*perL1, table); err != nil {
			return err
		}
	}
	return nil
}

// tables returns the size of the disk in a file, and its first table.
func tables(from io.ReaderAt) (size.Bytes, []uint64, error) {
	disk, err := VirtualSize(from)
	if err != nil {
		return 0, nil, err
	}
	h := make([]byte, headerLength)
	if _, err := from.ReadAt(h, 0); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrNot, err)
	}
	be := binary.BigEndian
	entries := be.Uint32(h[36:])
	switch {
	case be.Uint32(h[4:]) != version, be.Uint32(h[20:]) != clusterBits:
		err = errors.New("a form that AegisVM does not write")
	case be.Uint32(h[32:]) != 0:
		err = errors.New("it is encrypted")
	case be.Uint64(h[72:])&^dirtyBit != 0:
		err = fmt.Errorf("features %#x", be.Uint64(h[72:]))
	case int64(entries) > int64(maxSize/perL1), int64(entries)*perL1 < int64(disk):
		err = fmt.Errorf("a table of %d entries", entries)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrNot, err)
	}
	b := make([]byte, 8*entries)
	if _, err := from.ReadAt(b, int64(be.Uint64(h[40:])&offsetBits)); err != nil {
		return 0, nil, fmt.Errorf("%w: its first table: %w", ErrNot, err)
	}
	first := make([]uint64, entries)
	for i := range first {
		first[i] = be.Uint64(b[8*i:])
	}
	return disk, first, nil
}

// applier copies the clusters of one file.
type applier struct {
	to   target
	from io.ReaderAt
	disk int64
	buf  []byte
}

// table copies the clusters of one table of the second level, the first of which stands at
// that place of the disk.
func (a *applier) table(at int64, table []byte) error {
	for i := 0; i < len(table) && at < a.disk; i, at = i+8, at+cluster {
		entry := binary.BigEndian.Uint64(table[i:])
		var err error
		switch {
		case entry&compressed != 0:
			err = fmt.Errorf("%w: a compressed cluster", ErrNot)
		case entry&zeroFlag != 0:
			err = a.zero(at)
		case entry&offsetBits != 0:
			err = a.copy(at, int64(entry&offsetBits))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) copy(at, offset int64) error {
	b := a.buf[:min(cluster, a.disk-at)]
	n, err := a.from.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(b[n:]) // behind the end of the file are zeros
	_, err = a.to.WriteAt(b, at)
	return err
}

// zero makes a cluster read as zeros, without filling what is a hole.
func (a *applier) zero(at int64) error {
	b := a.buf[:min(cluster, a.disk-at)]
	if _, err := a.to.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, c := range b {
		if c != 0 {
			clear(b)
			_, err := a.to.WriteAt(b, at)
			return err
		}
	}
	return nil
}
