package qemu

import (
	"errors"
	"fmt"
	"io"
)

// split is a state of which the guest's memory goes to a file of its own, each page at its
// own address. What is read of it is the state of a machine whose memory QEMU was told to save and has
// not: whoever loads it finds no page in it, and leaves the memory as it is.
//
// So a copy-on-write clone is saved as a machine that owns its memory is, and everything that can be
// done with one can be done with the other. See docs/design/0021-memory-apart.md.
type split struct {
	*pages
	to  io.WriterAt
	run []byte // pages that lie together and are not written yet
	at  int64  // of run

	written []uint64 // bits of pages that are not zeros in the file
	size    int64
}

// newSplit takes the memory, which must be of that size, out of the state in from. Of a state that
// is not understood it takes nothing.
func newSplit(from io.Reader, to io.WriterAt, size int64) *split {
	s := &split{to: to, size: size, run: make([]byte, 0, copySize), written: make([]uint64, size/pageSize/64+1)}
	s.pages = newPages(from, s.put)
	s.want, s.strict = uint64(size), true //nolint:gosec // a size
	return s
}

var errCut = fmt.Errorf("the state of the machine ends within its memory: %w", errForm)

// Read implements io.Reader. At the end all memory is in the file.
func (s *split) Read(p []byte) (int, error) {
	n, err := s.pages.Read(p)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) && s.begun && !s.done {
		err = errCut
	}
	if written := s.flush(); written != nil {
		err = written
	}
	return n, err
}

// apart tells, at the end, whether the memory was taken out.
func (s *split) apart() bool { return s.done }

// put takes a page. A page may come again; the last is the one that counts.
func (s *split) put(p *page) (bool, error) {
	if p.addr < 0 || p.addr > s.size-pageSize {
		return false, fmt.Errorf("a page at %#x of a memory of %#x: %w", p.addr, s.size, errForm)
	}
	bits, bit := &s.written[p.addr/pageSize/64], uint64(1)<<(p.addr/pageSize%64)
	if p.data == nil && *bits&bit == 0 {
		return true, nil // a hole
	}
	*bits |= bit
	if s.at+int64(len(s.run)) != p.addr || len(s.run) == cap(s.run) {
		if err := s.flush(); err != nil {
			return false, err
		}
		s.at = p.addr
	}
	n := len(s.run)
	s.run = s.run[:n+pageSize]
	clear(s.run[n+copy(s.run[n:], p.data):])
	return true, nil
}

func (s *split) flush() error {
	_, err := s.to.WriteAt(s.run, s.at)
	s.run = s.run[:0]
	return err
}
