package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/size"
)

// recorder is a Log that owns up to what it could not store, as on a full disk: to the
// daemon's log when that begins, and in the instance's own as soon as there is room
// again. The processes go on meanwhile.
//
// Its writing methods fail only with fs.ErrClosed.
type recorder struct {
	Log
	log *slog.Logger

	mu      sync.Mutex // protects what follows; never held over I/O
	lost    size.Bytes // of output
	why     error      // the first reason
	remarks []remark   // that are still to be written
}

// remark is a line of AegisVM's own, and how it is stored.
type remark struct {
	text string
	put  func(text string) error
}

// maxRemarks bounds what waits for room.
const maxRemarks = 16

// openLog opens the instance's log, for the writer that the actor is.
func (a *actor) openLog() (Log, error) {
	l, err := a.world.Logs.Open(a.id)
	if err != nil {
		return nil, err
	}
	return &recorder{Log: l, log: a.log}, nil
}

// Program implements Log.
func (r *recorder) Program(stream frame.Type, data []byte, offset uint64) error {
	return r.store(data, func() error { return r.Log.Program(stream, data, offset) })
}

// Skip implements Log.
func (r *recorder) Skip(offset uint64) error {
	return r.store(nil, func() error { return r.Log.Skip(offset) })
}

// Exec implements Log.
func (r *recorder) Exec(id guestproto.ExecID, stream frame.Type, data []byte) error {
	return r.store(data, func() error { return r.Log.Exec(id, stream, data) })
}

// System implements Log.
func (r *recorder) System(text string) error { return r.remark(remark{text, r.Log.System}) }

// End implements Log.
func (r *recorder) End(text string) error { return r.remark(remark{text, r.Log.End}) }

func (r *recorder) remark(m remark) error {
	err := r.confess()
	if err == nil {
		err = m.put(m.text)
	}
	if err == nil || errors.Is(err, fs.ErrClosed) {
		return err
	}
	r.fail(0, err, m)
	return nil
}

func (r *recorder) store(data []byte, do func() error) error {
	err := r.confess()
	if err == nil {
		err = do()
	}
	if err == nil || errors.Is(err, fs.ErrClosed) {
		return err
	}
	r.fail(size.Bytes(len(data)), err)
	return nil
}

// fail notes what could not be stored.
func (r *recorder) fail(lost size.Bytes, err error, remarks ...remark) {
	r.mu.Lock()
	first := r.why == nil
	if first {
		r.why = err
	}
	r.lost += lost
	if len(r.remarks)+len(remarks) <= maxRemarks {
		r.remarks = append(r.remarks, remarks...)
	}
	r.mu.Unlock()
	if first {
		r.log.Error("output is lost", logattr.Err(err))
	}
}

// confess writes what waits for room. After an error what it has not written waits
// again.
func (r *recorder) confess() error {
	r.mu.Lock()
	lost, why, remarks := r.lost, r.why, r.remarks
	r.lost, r.why, r.remarks = 0, nil, nil
	r.mu.Unlock()
	if why == nil {
		return nil
	}
	if lost > 0 {
		if err := r.Log.System(fmt.Sprintf("%v of output were lost here: %v", lost, why)); err != nil {
			r.wait(lost, why, remarks)
			return err
		}
	}
	for i, m := range remarks {
		if err := m.put(m.text); err != nil {
			r.wait(0, why, remarks[i:])
			return err
		}
	}
	r.log.Info("output is stored again")
	return nil
}

func (r *recorder) wait(lost size.Bytes, why error, remarks []remark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost, r.why, r.remarks = r.lost+lost, why, append(slices.Clip(remarks), r.remarks...)
}
