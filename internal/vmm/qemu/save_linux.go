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
	s := vmm.Saved{Driver: driverName, Identity: identity(m.monitor().version, model.Shape), Whole: !model.Owner, Disks: model.Disks}
	var mem *memory
	if model.Owner {
		var err error
		if mem, err = m.proc.memory(model.RAM); err != nil {
			return vmm.Saved{}, nil, m.blame(ctx, err)
		}
	}
	var err error
	if s.State, err = m.saveState(ctx, filepath.Join(dest.Dir, stateName), s.Whole, s.Whole && !dest.Hasty); err != nil {
		if mem != nil {
			closeAll(mem.file)
		}
		return vmm.Saved{}, nil, err
	}
	if mem == nil {
		return s, nil, nil
	}
	mem.of = s.State.Digest
	m.hold(mem).spoil() // this save takes the place of one before
	return s, mem, nil
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

// saveState writes the machine's state to a new file.
func (m *Machine) saveState(ctx context.Context, path string, whole, compress bool) (vmm.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return vmm.File{}, storeError(ctx, err)
	}
	to := &sink{to: f, sum: newSum(whole)}
	err = m.stream(ctx, whole, compress, to)
	if closed := f.Close(); err == nil && closed != nil {
		err = storeError(ctx, closed)
	}
	if err != nil {
		return vmm.File{}, errors.Join(err, os.Remove(path))
	}
	return vmm.File{Path: path, Size: size.Bytes(to.n), Digest: to.sum.Digest()}, nil
}

// cancelGrace is how long QEMU may take to give up a save.
const cancelGrace = 5 * time.Second

// stream lets QEMU write the state through a pipe. When it returns QEMU has done
// with it, whatever came of it: a migration that is left alone would go on under a
// machine that is resumed, and QEMU 7.2 does not survive that.
func (m *Machine) stream(ctx context.Context, whole, compress bool, to io.Writer) error {
	r, w, err := newPipe()
	if err != nil {
		return err
	}
	defer closeAll(r)
	copied := make(chan error, 1)
	go func() { copied <- copyState(to, onlyReader{r}, compress) }()
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
		return storeError(ctx, written)
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
