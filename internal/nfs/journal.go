package nfs

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// journal is the memory of replays in a file: what a process has written to one stays
// when it is killed. Nothing is synced: a crash of the host ends the guest too.
//
// The file is slots: state u32, length u32, xid u32, turn u32, sum u64, then the
// answer. Turns count up, and say which slot was used last. Numbers are in the order of
// the host.
type journal struct{ f *os.File }

const (
	slotSize  = 512
	slotHead  = 24
	maxAnswer = slotSize - slotHead

	slotBegun = 1
	slotDone  = 2
)

// openJournal opens or makes the file at path.
func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{f}, nil
}

func (j *journal) close() { _ = j.f.Close() } // what was written is with the kernel

// journaled is a request in a journal; without an answer if it was not finished.
type journaled struct {
	slot   int
	turn   uint32
	key    replayKey
	answer []byte
}

// load returns what is in the slots that are used.
func (j *journal) load() ([]journaled, error) {
	b := make([]byte, maxReplays*slotSize)
	n, err := j.f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var out []journaled
	for i := range (n + slotSize - 1) / slotSize { // the last one may be short
		s := b[i*slotSize : (i+1)*slotSize]
		state, size := binary.NativeEndian.Uint32(s), binary.NativeEndian.Uint32(s[4:])
		if state != slotBegun && state != slotDone || size > maxAnswer {
			continue
		}
		e := journaled{slot: i, turn: binary.NativeEndian.Uint32(s[12:])}
		e.key = replayKey{binary.NativeEndian.Uint32(s[8:]), binary.NativeEndian.Uint64(s[16:])}
		if state == slotDone {
			e.answer = s[slotHead : slotHead+size]
		}
		out = append(out, e)
	}
	return out, nil
}

// put notes a request: before it is done without an answer, and then with it.
func (j *journal) put(e journaled) error {
	var s [slotSize]byte
	state, size := uint32(slotBegun), slotHead
	if e.answer != nil && len(e.answer) <= maxAnswer { // all are short
		state = slotDone
		size += copy(s[slotHead:], e.answer)
	}
	binary.NativeEndian.PutUint32(s[:], state)
	binary.NativeEndian.PutUint32(s[4:], uint32(size-slotHead))
	binary.NativeEndian.PutUint32(s[8:], e.key.xid)
	binary.NativeEndian.PutUint32(s[12:], e.turn)
	binary.NativeEndian.PutUint64(s[16:], e.key.sum)
	_, err := j.f.WriteAt(s[:size], int64(e.slot)*slotSize)
	return err
}
