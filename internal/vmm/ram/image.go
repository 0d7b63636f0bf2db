package ram

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Store writes an image of the memory in from to a new file at path. The memory
// must not change meanwhile. After an error there is no such file.
func Store(ctx context.Context, from *os.File, path string) (vmm.File, error) {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return vmm.File{}, err
	}
	f, err := store(ctx, from, to)
	if err = errors.Join(err, to.Close()); err != nil {
		return vmm.File{}, errors.Join(err, os.Remove(path))
	}
	return f, nil
}

func store(ctx context.Context, from, to *os.File) (vmm.File, error) {
	fi, err := from.Stat()
	if err != nil {
		return vmm.File{}, err
	}
	runs, err := dataRuns(from, fi.Size())
	if err != nil {
		return vmm.File{}, err
	}
	todo := blocks(runs, fi.Size())
	kept := make([][]extent, len(todo))
	err = each(ctx, len(todo), func(i int, buf []byte) error {
		b := buf[:todo[i].length]
		if _, err := from.ReadAt(b, todo[i].offset); err != nil {
			return err
		}
		for _, e := range dense(b) {
			data := b[e.offset : e.offset+int64(e.length)]
			e.offset, e.sum = todo[i].offset+e.offset, crc32.Checksum(data, castagnoli)
			if _, err := to.WriteAt(data, e.offset); err != nil {
				return err
			}
			kept[i] = append(kept[i], e)
		}
		return nil
	})
	if err != nil {
		return vmm.File{}, err
	}
	t := table{size: fi.Size(), extents: slices.Concat(kept...)}
	encoded := t.encode()
	if _, err := to.WriteAt(encoded, t.size); err != nil {
		return vmm.File{}, err
	}
	return vmm.File{Path: to.Name(), Size: size.Bytes(t.bytes() + int64(len(encoded))), Digest: digest(encoded)}, nil
}

// Copy copies the memory in from to a file of its size in which nothing was written yet, and
// reports whether it has: it does not if that is more than limit. The memory must not
// change meanwhile.
func Copy(ctx context.Context, from, to *os.File, limit size.Bytes) (bool, error) {
	fi, err := from.Stat()
	if err != nil {
		return false, err
	}
	runs, err := dataRuns(from, fi.Size())
	if err != nil {
		return false, err
	}
	var total size.Bytes
	for _, r := range runs {
		total += size.Bytes(r.length)
	}
	if total > limit {
		return false, nil
	}
	todo := blocks(runs, fi.Size())
	return true, each(ctx, len(todo), func(i int, buf []byte) error {
		b := buf[:todo[i].length]
		if _, err := from.ReadAt(b, todo[i].offset); err != nil {
			return err
		}
		for _, e := range dense(b) {
			if _, err := to.WriteAt(b[e.offset:e.offset+int64(e.length)], todo[i].offset+e.offset); err != nil {
				return err
			}
		}
		return nil
	})
}

// Image is an image that was opened, whose table is in order.
type Image struct {
	file  *os.File
	table *table
}

// Open opens an image. It fails with an error that wraps vmm.ErrDamaged where the
// file is not what Store has written.
func Open(f vmm.File) (*Image, error) {
	file, err := os.Open(f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	} else if err != nil {
		return nil, err
	}
	i := &Image{file: file}
	if i.table, err = open(file, f.Digest); err != nil {
		_ = file.Close() // only read
		return nil, fmt.Errorf("%w: %s: %w", vmm.ErrDamaged, f.Path, err)
	}
	return i, nil
}

var errAnother = errors.New("it is another image")

func open(file *os.File, want string) (*table, error) {
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	t, sum, err := readTable(file, fi.Size())
	if err == nil && sum != want {
		err = errAnother
	}
	return t, err
}

// Size returns how much memory the image holds.
func (i *Image) Size() size.Bytes { return size.Bytes(i.table.size) }

// Load writes the memory to a file of its size in which nothing was written yet, and checks
// all of it. It fails with an error that wraps vmm.ErrDamaged where the image was
// changed.
func (i *Image) Load(ctx context.Context, to *os.File) error {
	return each(ctx, len(i.table.extents), func(n int, buf []byte) error {
		e := i.table.extents[n]
		b := buf[:e.length]
		if _, err := i.file.ReadAt(b, e.offset); err != nil {
			return fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
		}
		if crc32.Checksum(b, castagnoli) != e.sum {
			return fmt.Errorf("%w: %s is changed at %d", vmm.ErrDamaged, i.file.Name(), e.offset)
		}
		_, err := to.WriteAt(b, e.offset)
		return err
	})
}

// Close closes the image.
func (i *Image) Close() error { return i.file.Close() }

// each calls do for 0 to n-1, some at a time, each with a buffer of one block. It
// returns when all calls have, the first error ending the work.
func each(ctx context.Context, n int, do func(i int, buf []byte) error) error {
	var next atomic.Int64
	var workers sync.WaitGroup
	errs := make(chan error, 1)
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			buf := make([]byte, block)
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				err := context.Cause(ctx)
				if err == nil {
					err = do(int(i), buf)
				}
				if err != nil {
					select {
					case errs <- err:
					default: // the first one is told
					}
					next.Store(int64(n))
					return
				}
			}
		})
	}
	workers.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// run is a run of data of any length.
type run struct{ offset, length int64 }

// blocks returns the blocks of a file that have data: whole ones, at multiples of
// their size. What an image is depends on the bytes alone, and not on which pages
// of zeros happen to exist: clones that only read make some.
func blocks(runs []run, size int64) []extent {
	var out []extent
	end := int64(0)
	for _, r := range runs {
		for at := max(r.offset/block*block, end); at < r.offset+r.length; at = end {
			end = min(at+block, size)
			out = append(out, extent{offset: at, length: int(end - at)})
		}
	}
	return out
}

var zeros [page]byte

// dense returns the runs of b that are not zero, at page granularity; a few zero
// pages between two runs are left in.
func dense(b []byte) []extent {
	const gap = 16 * page
	var out []extent
	for at := 0; at < len(b); at += page {
		p := b[at:min(at+page, len(b))]
		if string(p) == string(zeros[:len(p)]) {
			continue
		}
		if n := len(out) - 1; n >= 0 && at-(int(out[n].offset)+out[n].length) < gap {
			out[n].length = at + len(p) - int(out[n].offset)
			continue
		}
		out = append(out, extent{offset: int64(at), length: len(p)})
	}
	return out
}
