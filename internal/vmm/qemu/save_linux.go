package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// stateName is the file that a save writes.
const stateName = "state"

// Save implements vmm.Saver.
func (m *Machine) Save(ctx context.Context, dest vmm.Dest) (vmm.Saved, vmm.Memory, error) {
	if err := m.begin(ctx); err != nil {
		return vmm.Saved{}, nil, err
	}
	defer func() { <-m.op }()
	if err := m.savable(ctx); err != nil {
		return vmm.Saved{}, nil, err
	}
	model := m.folder.model
	s := vmm.Saved{Driver: driverName, Identity: identity(m.monitor().version, model.Shape), Disks: model.Disks}
	mem, err := m.memoryToSave(&model)
	if err != nil {
		return vmm.Saved{}, nil, m.blame(ctx, err)
	}
	how := manner{whole: !model.Owner, apart: mem, compress: mem == nil && !dest.Hasty}
	if model.Owner {
		how.apart = nil // QEMU leaves it out
	}
	s.State, s.Whole, err = m.saveState(ctx, filepath.Join(dest.Dir, stateName), &how)
	if mem != nil && (err != nil || s.Whole) {
		closeAll(mem.file)
		mem = nil
	}
	if err != nil {
		return vmm.Saved{}, nil, err
	}
	if mem == nil {
		return s, nil, nil
	}
	mem.of = s.State.Digest
	if !model.Owner {
		mem.free()
		return s, mem, nil
	}
	m.hold(mem).spoil() // this save takes the place of one before
	return s, mem, nil
}

// memoryToSave returns the memory of a machine that owns it; for that of a clone empty memory, to save it
// to, or nil where the host has no room for it or QEMU puts something there before it loads.
func (m *Machine) memoryToSave(of *model) (*memory, error) {
	if of.Owner {
		return m.proc.memory(of.RAM)
	}
	bytes, err := m.proc.memorySize(of.RAM)
	if err != nil || !startsBare(of.Shape) || !m.roomFor(bytes) {
		return nil, err
	}
	return newMemory(bytes)
}

// roomFor tells whether the host has that much memory.
func roomFor(bytes size.Bytes) bool {
	avail, err := availableMemory()
	return err == nil && avail >= bytes
}

// manner is how a machine's state is written.
type manner struct {
	whole    bool    // QEMU writes the memory too
	apart    *memory // to which it goes, or nil for the state's own file
	compress bool
}

// savable returns why the machine cannot be saved now, or nil.
func (m *Machine) savable(ctx context.Context) error {
	is, err := m.status(ctx)
	switch {
	case err != nil:
		return m.blame(ctx, err)
	case is == running:
		return fault.New(fault.Conflict, "a machine that runs cannot be saved")
	case is == postmigrate:
		return fault.New(fault.Conflict, "the machine was saved at this pause; it must run before it is saved again")
	case m.folder.model.Shape == "":
		return fault.New(fault.Conflict, "what the machine was started with is not known any more")
	}
	return nil
}

// saveState writes the machine's state to a new file, and reports whether it holds the memory.
func (m *Machine) saveState(ctx context.Context, path string, how *manner) (vmm.File, bool, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return vmm.File{}, false, storeError(ctx, err)
	}
	kinds := []bool{how.whole}
	if how.apart != nil {
		kinds = append(kinds, !how.whole)
	}
	to := newSink(f, kinds...)
	whole, err := m.stream(ctx, how, to)
	if closed := f.Close(); err == nil && closed != nil {
		err = storeError(ctx, closed)
	}
	if err != nil {
		return vmm.File{}, false, errors.Join(err, os.Remove(path))
	}
	return vmm.File{Path: path, Size: size.Bytes(to.n), Digest: to.sums[whole].Digest()}, whole, nil
}

// cancelGrace is how long QEMU may take to give up a save.
const cancelGrace = 5 * time.Second

// stream lets QEMU write the state through a pipe. When it returns QEMU has done
// with it, whatever came of it: a migration that is left alone would go on under a
// machine that is resumed, and QEMU 7.2 does not survive that. It reports whether what was
// written holds the memory.
func (m *Machine) stream(ctx context.Context, how *manner, to io.Writer) (whole bool, err error) {
	r, w, err := newPipe()
	if err != nil {
		return false, err
	}
	defer closeAll(r)
	var from io.Reader = onlyReader{r}
	var parts *split
	if how.apart != nil {
		if parts, err = how.apart.splitting(from); err != nil {
			closeAll(w)
			return false, err
		}
		from = parts
	}
	copied := make(chan error, 1)
	go func() { copied <- copyState(to, from, how.compress) }()
	if err := m.sendState(ctx, how.whole, r, w, copied); err != nil {
		return false, err
	}
	return how.whole && (parts == nil || !parts.apart()), nil
}

// sendState lets QEMU write to w, of which r is the other end, and waits for what comes of it and of
// whoever reads.
func (m *Machine) sendState(ctx context.Context, whole bool, r, w *os.File, copied <-chan error) error {
	mon := m.monitor()
	late, cancel := withGrace(ctx, cancelGrace)
	defer cancel()
	if err := mon.migrate(late, "migrate", whole, w); err != nil {
		closeAll(r)
		<-copied //nolint:errcheck // the first error is told
		return m.blame(ctx, fmt.Errorf("save: %w", err))
	}
	var written error
	select {
	case written = <-copied:
	case <-ctx.Done():
		m.abandon(r)
		<-copied //nolint:errcheck // the end of the context is told
	}
	if written != nil && ctx.Err() == nil {
		m.abandon(r)
		_, _ = io.Copy(io.Discard, r) // up to the end that says that QEMU is done, or the deadline
		if !errors.Is(written, errForm) {
			return storeError(ctx, written)
		}
		// QEMU wrote something else than it should, or died.
		if err := mon.finishMigration(late); err != nil {
			written = err
		}
		return m.blame(ctx, fmt.Errorf("save: %w", written))
	}
	if err := mon.finishMigration(late); err != nil {
		return m.blame(ctx, fmt.Errorf("save: %w", err))
	}
	return nil
}

// withGrace returns a context that ends some time after ctx.
func withGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			cancel(context.Cause(ctx))
		case <-late.Done():
		}
	})
	return late, func() {
		stop()
		cancel(nil)
	}
}

// abandon asks QEMU to give up a save, and bounds how long its pipe is read.
func (m *Machine) abandon(r *os.File) {
	_ = r.SetReadDeadline(time.Now().Add(cancelGrace)) // pipes have deadlines
	_, _, _ = m.monitor().send("migrate_cancel", nil, nil)
}
