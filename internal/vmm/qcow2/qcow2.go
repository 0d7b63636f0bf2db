// Package qcow2 makes the files by which disks are forked: empty overlays in
// QEMU's qcow2 format, version 3, as docs/interop/qcow2.txt in QEMU's sources
// describes it. It needs no program of QEMU's. It imports only vmm and the standard
// library.
//
// An overlay names what it lies on, for people and for qemu-img. AegisVM itself
// never believes that name: a VMM can write to its overlay's header.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

const (
	magic        = "QFI\xfb"
	version      = 3
	headerLength = 104

	clusterBits = 16
	cluster     = 1 << clusterBits
	// perL1 is how much of a disk one entry of the first table covers: a cluster of
	// entries of 8 bytes, each for a cluster.
	perL1 = cluster / 8 * cluster

	// backingFormat is the type of the header extension that says what format the
	// backing file has, so that nobody guesses it from what a guest wrote.
	backingFormat = 0xe2792aca

	// maxSize is far above any disk, and keeps what is written here to some clusters.
	maxSize = 64 * size.TiB
	maxName = 1023
)

// Create makes an empty overlay at path, where nothing may be, for a disk of the
// given size on a layer. The name of the layer's file is kept as it stands in
// under.Path.
func Create(path string, disk size.Bytes, under vmm.Layer) error {
	b, err := overlay(disk, under)
	if err != nil {
		return fmt.Errorf("make overlay %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = write(f, b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// write writes the clusters that are not empty, and leaves holes. The header comes last:
// a file that has one is whole, however its writer died.
func write(f *os.File, b []byte) error {
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	for at := 2 * cluster; at >= 0; at -= cluster {
		if _, err := f.WriteAt(b[at:at+1024+maxName], int64(at)); err != nil {
			return err
		}
	}
	return nil
}

// overlay returns the file: header, table of reference counts, one block of them,
// and a first table without entries.
func overlay(disk size.Bytes, under vmm.Layer) ([]byte, error) {
	if disk <= 0 || disk > maxSize || disk%512 != 0 {
		return nil, fmt.Errorf("a disk of %d bytes", disk)
	}
	if under.Path == "" || len(under.Path) > maxName {
		return nil, fmt.Errorf("a backing file of the name %q", under.Path)
	}
	entries := (int64(disk) + perL1 - 1) / perL1
	clusters := 3 + (entries*8+cluster-1)/cluster
	b := make([]byte, clusters*cluster)
	be := binary.BigEndian
	copy(b, magic)
	be.PutUint32(b[4:], version)
	be.PutUint32(b[20:], clusterBits)
	be.PutUint64(b[24:], uint64(disk))
	be.PutUint32(b[36:], uint32(entries)) //nolint:gosec // maxSize bounds it
	be.PutUint64(b[40:], 3*cluster)       // the first table
	be.PutUint64(b[48:], cluster)         // the table of reference counts
	be.PutUint32(b[56:], 1)               // its clusters
	be.PutUint32(b[96:], 4)               // counts of 1 << 4 bits
	be.PutUint32(b[100:], headerLength)
	at := headerLength
	be.PutUint32(b[at:], backingFormat)
	be.PutUint32(b[at+4:], uint32(len(under.Format))) //nolint:gosec // a word
	copy(b[at+8:], under.Format)
	at += 8 + (len(under.Format)+7)/8*8
	at += 8 // the end of the extensions
	be.PutUint64(b[8:], uint64(at))
	be.PutUint32(b[16:], uint32(len(under.Path))) //nolint:gosec // maxName bounds it
	copy(b[at:], under.Path)
	be.PutUint64(b[cluster:], 2*cluster)
	for i := range clusters {
		be.PutUint16(b[2*cluster+2*i:], 1)
	}
	return b, nil
}

// ErrNot says that a file is not in the format.
var ErrNot = errors.New("not a qcow2 file")

// VirtualSize returns the size of the disk that a file holds.
func VirtualSize(r io.ReaderAt) (size.Bytes, error) {
	b := make([]byte, 32)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		if errors.Is(err, io.EOF) {
			err = ErrNot
		}
		return 0, err
	}
	if v := binary.BigEndian.Uint32(b[4:]); string(b[:4]) != magic || v != 2 && v != 3 {
		return 0, ErrNot
	}
	n := binary.BigEndian.Uint64(b[24:])
	if n == 0 || n > uint64(maxSize) {
		return 0, fmt.Errorf("%w: a disk of %d bytes", ErrNot, n)
	}
	return size.Bytes(n), nil
}

// DiskSize returns the size of the disk that a file of the format holds.
func DiskSize(path string, format vmm.DiskFormat) (size.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	if format == vmm.QCOW2 {
		n, err := VirtualSize(f)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		return n, nil
	}
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return size.Bytes(fi.Size()), nil
}
