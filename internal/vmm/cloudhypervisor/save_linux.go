package cloudhypervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
)

const (
	// stateName is the file that a save writes.
	stateName = "state"
	// Names in the VMM's folder: where it saves to, and what it is restored from.
	saveDir, loadDir = "save", "load"
	// What upstream calls the files of a snapshot.
	stateFile, configFile, dumpFile = "state.json", "config.json", "memory-ranges"
	// maxState bounds a state, which is read at once: some hundred kilobytes.
	maxState = 64 << 20
)

// Save implements vmm.Saver.
func (m *Machine) Save(ctx context.Context, dest vmm.Dest) (vmm.Saved, vmm.Memory, error) {
	if err := m.begin(ctx); err != nil {
		return vmm.Saved{}, nil, err
	}
	defer func() { <-m.op }()
	if err := m.savable(ctx); err != nil {
		return vmm.Saved{}, nil, err
	}
	s := vmm.Saved{Driver: driverName, Identity: identity(m.driver.version, m.model.Shape), Disks: m.model.Disks}
	mem, err := m.snapshot(ctx)
	defer m.clearSave()
	if err == nil {
		s.State, err = m.keepState(ctx, filepath.Join(dest.Dir, stateName))
	}
	if err != nil {
		if mem != nil {
			host.CloseAll(mem.file)
		}
		return vmm.Saved{}, nil, err
	}
	m.saved.Store(true)
	mem.of = s.State.Digest
	if !mem.custody.Held() {
		return s, mem, nil
	}
	m.hold(mem).spoil() // this save takes the place of one before
	return s, mem, nil
}

// savable returns why the machine cannot be saved now, or nil.
func (m *Machine) savable(ctx context.Context) error {
	is, err := m.state(ctx)
	switch {
	case err != nil:
		return m.blame(ctx, err)
	case is != statePaused:
		return fault.New(fault.Conflict, "a machine that runs cannot be saved")
	case m.saved.Load():
		return fault.New(fault.Conflict, "the machine was saved at this pause; it must run before it is saved again")
	case m.model.Shape == "":
		return fault.New(fault.Conflict, "what the machine was started with is not known any more")
	}
	return nil
}

// ownDir is the VMM's folder.
func (m *Machine) ownDir() string { return filepath.Join(m.folder.Path, ownName) }

// clearSave removes what a save has left, the memory included.
func (m *Machine) clearSave() { _ = os.RemoveAll(filepath.Join(m.ownDir(), saveDir)) } // it goes with the machine

// snapshot makes the VMM write a snapshot into its folder, and returns the memory that
// belongs to it: the machine's own, or a copy.
func (m *Machine) snapshot(ctx context.Context) (*memory, error) {
	var own *memory
	if m.model.Owner && !m.model.Layered {
		f, err := memoryOf(m.proc, m.model.RAM)
		if err != nil {
			return nil, m.blame(ctx, err)
		}
		own = &memory{file: f, driver: m.driver}
		m.name(f)
		defer m.unname()
	}
	if err := m.write(ctx); err != nil {
		if own != nil {
			host.CloseAll(own.file)
		}
		return nil, err
	}
	dump, err := os.Open(filepath.Join(m.ownDir(), saveDir, dumpFile))
	switch {
	case own != nil:
		// What was dumped is what the machine has: it is paused.
		host.CloseAll(dump)
		return own, nil
	case err != nil:
		return nil, m.blame(ctx, err)
	}
	defer host.CloseAll(dump)
	like := memory{driver: m.driver}
	fi, err := dump.Stat()
	if err != nil {
		return nil, err
	}
	mem, err := like.copy(ctx, dump, size.Bytes(fi.Size()))
	if err != nil {
		return nil, storeError(ctx, err)
	}
	return mem, nil
}

// write makes the VMM write its snapshot. When it returns the VMM has done with it.
func (m *Machine) write(ctx context.Context) error {
	m.clearSave()
	dir := filepath.Join(m.ownDir(), saveDir)
	if err := m.driver.makeDir(dir); err != nil {
		if err = m.explain(ctx, err); errors.Is(err, vmm.ErrEnded) {
			return err
		}
		return storeError(ctx, err)
	}
	// Not the caller's context: a request that was made is performed, and the machine
	// must not go on before. It takes as long as the memory of a clone takes to be
	// written.
	err := m.api.put(context.WithoutCancel(ctx), "vm.snapshot", snapshotConfig{"file://" + m.model.own(saveDir)})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return m.blame(ctx, fmt.Errorf("save: %w", err))
	}
	return nil
}

// keepState copies the state of a snapshot to where the caller wants it.
func (m *Machine) keepState(ctx context.Context, path string) (vmm.File, error) {
	b, err := m.savedState()
	if err != nil {
		return vmm.File{}, m.blame(ctx, err)
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return vmm.File{}, storeError(ctx, err)
	}
	_, err = to.Write(b)
	if err = errors.Join(err, to.Close()); err != nil {
		return vmm.File{}, errors.Join(storeError(ctx, err), os.Remove(path))
	}
	return vmm.File{Path: path, Size: size.Bytes(len(b)), Digest: digest(b)}, nil
}

// savedState reads the state of a snapshot. It is gone if the machine is.
func (m *Machine) savedState() ([]byte, error) {
	f, err := os.Open(filepath.Join(m.ownDir(), saveDir, stateFile))
	if err != nil {
		return nil, err
	}
	defer host.CloseAll(f)
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err == nil && len(b) > maxState {
		err = fmt.Errorf("a state of more than %v", size.Bytes(maxState))
	}
	if err != nil {
		return nil, err
	}
	return withoutDump(b)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// makeDir makes a folder for the VMM to write to.
func (d *Driver) makeDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer host.CloseAll(f)
	return d.account.Give(f)
}

var _ vmm.Saver = (*Machine)(nil)
