package qemu

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// dense passes on a state that holds the memory too, without the pages of the guest's memory that are
// zeros. QEMU looks at each of them before it leaves it as it is, and a page that was looked at
// takes room on the host: a guest of 512 MB that uses 100 would take all of it, and take
// longer to load. The memory that a state is loaded into is empty, so nothing is missing.
//
// The form is that of QEMU's migration/savevm.c and ram.c. Whatever is not understood is passed
// on as it is, with all that follows.
type dense struct {
	in   *bufio.Reader
	out  []byte // to be read, before in
	step func() error

	section [4]byte // id of the memory's
	memory  string  // name of the guest's memory, the largest block
	block   string  // that pages without a name are of
	last    bool    // the memory's last section has begun
}

// From QEMU's sources.
const (
	sectionStart, sectionPart, sectionEnd, sectionFooter = 0x01, 0x02, 0x03, 0x7e

	pageZero, pageSizes, pagePlain, pagesEnd, pageContinues = 0x02, 0x04, 0x08, 0x10, 0x20
	pageFlags, pageSize                                     = 0xfff, 0x1000
)

const (
	// denseAhead is how far the memory's first section is looked for. Some hundred bytes
	// come before it.
	denseAhead = 64 << 10
	// denseChunk is how much is put together before it is passed on.
	denseChunk = 256 << 10
)

// errForm ends the work of a dense: the rest is passed on.
var errForm = errors.New("not understood")

func newDense(in io.Reader) *dense {
	d := &dense{in: bufio.NewReaderSize(in, copySize)}
	d.step = d.start
	return d
}

// Read implements io.Reader.
func (d *dense) Read(p []byte) (int, error) {
	for len(d.out) == 0 && d.step != nil {
		if err := d.step(); err != nil {
			d.step = nil // what was looked at and not passed on is still in d.in
		}
	}
	if len(d.out) == 0 {
		return d.in.Read(p)
	}
	n := copy(p, d.out)
	if d.out = d.out[n:]; len(d.out) == 0 {
		d.out = nil
	}
	return n, nil
}

// pass passes on what was peeked at.
func (d *dense) pass(b []byte) {
	d.out = append(d.out, b...)
	_, _ = d.in.Discard(len(b)) // it is in the buffer
}

// start finds the memory's first section, which lists the blocks of memory.
func (d *dense) start() error {
	const name = "\x03ram\x00\x00\x00\x00\x00\x00\x00\x04" // of instance 0, version 4
	head, _ := d.in.Peek(denseAhead)                       // there may be less
	at := bytes.Index(head, []byte(name))
	if at < 5 || head[at-5] != sectionStart {
		return errForm
	}
	d.section = [4]byte(head[at-4 : at])
	end := at + len(name)
	if len(head) < end+8 {
		return errForm
	}
	total := binary.BigEndian.Uint64(head[end:])
	end += 8
	if total&pageFlags != pageSizes {
		return errForm
	}
	total &^= pageFlags
	most := uint64(0)
	for sum := uint64(0); sum < total; {
		if len(head) < end+1 || len(head) < end+1+int(head[end])+8 {
			return errForm
		}
		name := string(head[end+1 : end+1+int(head[end])])
		end += 1 + len(name)
		used := binary.BigEndian.Uint64(head[end:])
		end += 8
		if used > total-sum {
			return errForm
		}
		sum += used
		if used > most {
			d.memory, most = name, used
		}
	}
	if !d.ends(head[end:]) {
		return errForm
	}
	d.pass(head[:end+8+5])
	d.step = d.next
	return nil
}

// ends reports whether b begins with the end of the memory's section.
func (d *dense) ends(b []byte) bool {
	return len(b) >= 13 && binary.BigEndian.Uint64(b) == pagesEnd && b[8] == sectionFooter && bytes.Equal(b[9:13], d.section[:])
}

// next begins one of the sections that have the pages.
func (d *dense) next() error {
	head, _ := d.in.Peek(5) // there may be less
	if len(head) < 5 || head[0] != sectionPart && head[0] != sectionEnd || !bytes.Equal(head[1:], d.section[:]) {
		return errForm
	}
	d.last = head[0] == sectionEnd
	d.pass(head)
	d.step = d.pages
	return nil
}

// pages passes on some pages.
func (d *dense) pages() error {
	for len(d.out) < denseChunk {
		head, _ := d.in.Peek(8 + 1 + 255 + 1) // as above
		if len(head) < 8 {
			return errForm
		}
		if d.ends(head) {
			d.pass(head[:13])
			if d.step = d.next; d.last {
				d.step = nil
			}
			return nil
		}
		flags, length := binary.BigEndian.Uint64(head)&pageFlags, 8
		named := flags&pageContinues == 0
		if named {
			if len(head) < 9 || len(head) < 9+int(head[8]) {
				return errForm
			}
			length += 1 + int(head[8])
		}
		switch flags &^ pageContinues {
		case pageZero:
			if len(head) <= length || head[length] != 0 {
				return errForm
			}
			length++
			if !named && d.block == d.memory {
				_, _ = d.in.Discard(length) // this is what it is all about
				continue
			}
		case pagePlain:
			length += pageSize
		default:
			return errForm
		}
		whole, err := d.in.Peek(length)
		if err != nil {
			return errForm
		}
		if named {
			d.block = string(whole[9 : 9+int(whole[8])])
		}
		d.pass(whole)
	}
	return nil
}
