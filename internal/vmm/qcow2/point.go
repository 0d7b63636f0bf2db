package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Point makes an overlay of Create's say that it lies on under, for a VMM that believes
// what overlays say. One that says so already is only read: layers are shared, and
// machines run on them.
func Point(path string, under vmm.Layer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	head := make([]byte, 1024+maxName)
	_, err = f.ReadAt(head, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrNot, err)
	}
	at, named, err := pointer(head)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if named == (vmm.Layer{Path: under.Path, Format: under.Format}) {
		return nil
	}
	// The header that Create would have written differs in name and format alone.
	made, err := overlay(1<<20, under)
	if err != nil {
		return err
	}
	if want, _, err := pointer(made); err != nil || want != at {
		return fmt.Errorf("%s: %w: its name stands elsewhere", path, ErrNot)
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	copy(head[16:20], made[16:20])
	copy(head[headerLength:], made[headerLength:len(head)])
	_, err = w.WriteAt(head, 0)
	return errors.Join(err, w.Close())
}

// pointer returns where in a header the name of the backing file stands, and what it is.
func pointer(head []byte) (at int, under vmm.Layer, err error) {
	be := binary.BigEndian
	if string(head[:4]) != magic || be.Uint32(head[4:]) != version || be.Uint32(head[100:]) != headerLength {
		return 0, under, ErrNot
	}
	if be.Uint32(head[headerLength:]) != backingFormat {
		return 0, under, fmt.Errorf("%w: a form that AegisVM does not write", ErrNot)
	}
	format, from, n := be.Uint32(head[headerLength+4:]), be.Uint64(head[8:]), be.Uint32(head[16:])
	if format > 8 || from < headerLength || from+uint64(n) > uint64(len(head)) || n > maxName {
		return 0, under, fmt.Errorf("%w: its backing file", ErrNot)
	}
	under.Format = vmm.DiskFormat(head[headerLength+8 : headerLength+8+format])
	under.Path = string(head[from : from+uint64(n)])
	return int(from), under, nil //nolint:gosec // within head
}
