package nfs

import (
	"encoding/binary"
)

// decoder reads XDR (RFC 4506) out of a message. After the first thing that is not
// there it gives zeros, and bad is set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// flag reads a bool.
func (d *decoder) flag() bool {
	v := d.u32()
	if v > 1 {
		d.bad = true
	}
	return v == 1
}

// opaque reads variable-length data of at most limit bytes. It is part of the message.
func (d *decoder) opaque(limit int) []byte {
	n := d.u32()
	if n > uint32(limit) { //nolint:gosec // limits are small and positive
		d.bad = true
		return nil
	}
	b := d.take(int(n))
	d.take(int(-n & 3))
	return b
}

// encoder writes XDR.
type encoder struct{ b []byte }

func (e *encoder) u32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }

func (e *encoder) flag(v bool) {
	if v {
		e.u32(1)
	} else {
		e.u32(0)
	}
}

func (e *encoder) opaque(b []byte) {
	e.u32(uint32(len(b))) //nolint:gosec // replies are small
	e.b = append(e.b, b...)
	e.pad(len(b))
}

func (e *encoder) text(s string) {
	e.u32(uint32(len(s))) //nolint:gosec // replies are small
	e.b = append(e.b, s...)
	e.pad(len(s))
}

// pad fills up to a multiple of four after n bytes.
func (e *encoder) pad(n int) {
	for ; n&3 != 0; n++ {
		e.b = append(e.b, 0)
	}
}
