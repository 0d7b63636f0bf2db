package logstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Record is one chunk of output.
type Record struct {
	Time   time.Time
	Stream frame.Type // Stdout or Stderr; Exit for a remark that ends a run
	Source instance.LogSource
	Exec   guestproto.ExecID // of an exec's output, at most 255 bytes
	Offset uint64            // end of the chunk in the guest's output log; the program's only
	Data   []byte
}

// A record on disk: crc32c u32 of all that follows, length u32 of the data, time i64
// in Unix nanoseconds, offset u64, stream u8, source u8, length u8 of the exec id, exec
// id, data. Numbers are big-endian.
const (
	headerSize = 4 + 4 + 8 + 8 + 1 + 1 + 1
	maxData    = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn reports a record that is not whole: the end of a log whose writer died.
var errTorn = errors.New("torn record")

func (r Record) size() int64 { return int64(headerSize + len(r.Exec) + len(r.Data)) }

func (r Record) encode(dst []byte) ([]byte, error) {
	if len(r.Data) > maxData || len(r.Exec) > 255 {
		return nil, fmt.Errorf("log record of %d bytes of exec %q is too large", len(r.Data), r.Exec)
	}
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, 0)                   // the checksum's place
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Data))) //nolint:gosec // bounded above
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Time.UnixNano()))
	dst = binary.BigEndian.AppendUint64(dst, r.Offset)
	dst = append(dst, byte(r.Stream), byte(r.Source), byte(len(r.Exec))) //nolint:gosec // bounded above
	dst = append(append(dst, r.Exec...), r.Data...)
	binary.BigEndian.PutUint32(dst[start:], crc32.Checksum(dst[start+4:], castagnoli))
	return dst, nil
}

// readRecord reads the next record. It returns io.EOF at the end, and errTorn where
// what follows is not a record.
func readRecord(r *bufio.Reader) (Record, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Record{}, endOf(err)
	}
	n := binary.BigEndian.Uint32(h[4:])
	if n > maxData {
		return Record{}, errTorn
	}
	rest := make([]byte, int(h[26])+int(n))
	if _, err := io.ReadFull(r, rest); err != nil {
		return Record{}, errTorn
	}
	sum := crc32.Update(crc32.Checksum(h[4:], castagnoli), castagnoli, rest)
	if sum != binary.BigEndian.Uint32(h[:]) {
		return Record{}, errTorn
	}
	return Record{
		Time:   time.Unix(0, int64(binary.BigEndian.Uint64(h[8:]))), //nolint:gosec // two's complement on disk
		Offset: binary.BigEndian.Uint64(h[16:]),
		Stream: frame.Type(h[24]),
		Source: instance.LogSource(h[25]),
		Exec:   guestproto.ExecID(rest[:h[26]]),
		Data:   rest[h[26]:],
	}, nil
}

func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return errTorn
}
