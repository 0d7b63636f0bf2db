package qemu

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// pages passes on a state that holds the memory too, without those pages of the guest's memory
// that it takes out.
//
// The form is that of QEMU's migration/savevm.c and ram.c; of 7.2 up to 10.0. Whatever
// is not understood is passed on as it is, with all that follows.
type pages struct {
	in   *bufio.Reader
	out  []byte // to be read, before in
	step func() error
	err  error // follows out

	// take reports whether a page is taken out. It may take one that is named only with all that
	// follow: those without a name are of the same block.
	take func(p *page) (bool, error)
	want uint64 // size of the guest's memory, or 0 for any
	// strict makes what is not understood an error, once pages may have been taken out.
	strict bool

	section [4]byte // id of the memory's
	memory  string  // name of the guest's memory, the largest block
	block   string  // that pages without a name are of
	begun   bool    // the blocks of memory are known
	last    bool    // the memory's last section has begun
	done    bool    // and has ended
}

// page is one of the guest's memory.
type page struct {
	addr  int64
	named bool   // the name of its block stands with it
	data  []byte // nil for zeros; valid until the next
}

// newDense takes out pages of zeros. QEMU looks at each of them before it leaves it as it is, and
// a page that was looked at takes room on the host: a guest of 512 MB that uses 100 would take
// all of it, and take longer to load. The memory that a state is loaded into is empty, so
// nothing is missing.
func newDense(in io.Reader) *pages {
	return newPages(in, func(p *page) (bool, error) { return p.data == nil && !p.named, nil })
}

// From QEMU's sources.
const (
	sectionStart, sectionPart, sectionEnd, sectionCommand, sectionFooter = 0x01, 0x02, 0x03, 0x08, 0x7e

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

// errForm ends the work of pages: the rest is passed on.
var errForm = errors.New("not understood")

func newPages(in io.Reader, take func(*page) (bool, error)) *pages {
	d := &pages{in: bufio.NewReaderSize(in, copySize), take: take}
	d.step = d.start
	return d
}

// Read implements io.Reader.
func (d *pages) Read(p []byte) (int, error) {
	for len(d.out) == 0 && d.step != nil {
		if err := d.step(); err != nil {
			d.step = nil // what was looked at and not passed on is still in d.in
			if !errors.Is(err, errForm) || d.strict && d.begun {
				d.err = err
			}
		}
	}
	if len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		return d.in.Read(p)
	}
	n := copy(p, d.out)
	if d.out = d.out[n:]; len(d.out) == 0 {
		d.out = nil
	}
	return n, nil
}

// pass passes on what was peeked at.
func (d *pages) pass(b []byte) {
	d.out = append(d.out, b...)
	_, _ = d.in.Discard(len(b)) // it is in the buffer
}

// start finds the memory's first section, which lists the blocks of memory.
func (d *pages) start() error {
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
	if !d.ends(head[end:]) || d.want > 0 && most != d.want {
		return errForm
	}
	d.pass(head[:end+8+5])
	d.begun = true
	d.step = d.next
	return nil
}

// ends reports whether b begins with the end of the memory's section.
func (d *pages) ends(b []byte) bool {
	return len(b) >= 13 && binary.BigEndian.Uint64(b) == pagesEnd && b[8] == sectionFooter && bytes.Equal(b[9:13], d.section[:])
}

// next begins one of the sections that have the pages. Between them QEMU 10.0 says that the
// machine changes hands: a command, with its number and the length of its arguments.
func (d *pages) next() error {
	head, _ := d.in.Peek(5) // there may be less
	if len(head) == 5 && head[0] == sectionCommand {
		whole, err := d.in.Peek(5 + int(binary.BigEndian.Uint16(head[3:])))
		if err != nil {
			return errForm
		}
		d.pass(whole)
		return nil
	}
	if len(head) < 5 || head[0] != sectionPart && head[0] != sectionEnd || !bytes.Equal(head[1:], d.section[:]) {
		return errForm
	}
	d.last = head[0] == sectionEnd
	d.pass(head)
	d.step = d.some
	return nil
}

// some goes through some pages.
func (d *pages) some() error {
	for len(d.out) < denseChunk {
		head, _ := d.in.Peek(8 + 1 + 255 + 1) // as above
		if len(head) < 8 {
			return errForm
		}
		if d.ends(head) {
			d.pass(head[:13])
			if d.step = d.next; d.last {
				d.step, d.done = nil, true
			}
			return nil
		}
		if err := d.page(head); err != nil {
			return err
		}
	}
	return nil
}

// page takes out a page, or passes it on. head is its beginning.
func (d *pages) page(head []byte) error {
	word := binary.BigEndian.Uint64(head)
	p, length := page{addr: int64(word &^ pageFlags), named: word&pageContinues == 0}, 8 //nolint:gosec // a negative one is refused
	block := d.block
	if p.named {
		if len(head) < 9 || len(head) < 9+int(head[8]) {
			return errForm
		}
		length += 1 + int(head[8])
		block = string(head[9:length])
	}
	header := length
	switch word & pageFlags &^ pageContinues {
	case pageZero:
		if len(head) <= length || head[length] != 0 {
			return errForm
		}
		length++
	case pagePlain:
		length += pageSize
	default:
		return errForm
	}
	whole, err := d.in.Peek(length)
	if err != nil {
		return errForm
	}
	if length-header == pageSize {
		p.data = whole[header:]
	}
	taken := false
	if block == d.memory {
		if taken, err = d.take(&p); err != nil {
			return err
		}
	}
	d.block = block
	if taken {
		_, _ = d.in.Discard(length) // it is in the buffer
		return nil
	}
	d.pass(whole)
	return nil
}
