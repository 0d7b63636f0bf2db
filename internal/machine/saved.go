package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// The files of a saved machine, beside the driver's own.
const (
	savedDir     = "saved"
	manifestName = "manifest.json"
	memoryName   = "memory"
)

// manifest describes a saved machine. It is the last thing that is written of one.
type manifest struct {
	Form    int       `json:"form"` // of this file
	Made    time.Time `json:"made"`
	Saved   vmm.Saved `json:"saved"`
	Image   string    `json:"image"`           // digest of the base image, which the memory has mounted
	Tools   toolSet   `json:"tools,omitempty"` // the disk of programs, which it has mounted too
	DiskEnd time.Time `json:"disk_end"`        // when the instance's disk was written last: it belongs to the memory
}

// manifestForm is the newest form, and the only one there has been.
const manifestForm = 1

// errNoSave is for drivers whose machines cannot be saved.
var errNoSave = fault.New(fault.Conflict, "this VMM cannot save the memory of a VM").By(fault.Driver).
	WithHint("see: aegis doctor")

// SavedMessage is the log's message once the state of a machine is saved, and its memory
// too or safe from changes: the machine need not stand any longer. `aegis bench` reads it.
const SavedMessage = "saved"

// Save implements instance.Ground.
func (g *Ground) Save(ctx context.Context, id instance.ID, m vmm.Machine) error {
	dir, err := g.folder(id)
	if err != nil {
		return err
	}
	// A save is of a machine that has run since the one before.
	if err := g.Spend(ctx, id); err != nil {
		return err
	}
	part, whole := filepath.Join(dir, atomicfile.Prefix+savedDir), filepath.Join(dir, savedDir)
	err = g.save(ctx, id, part, m)
	if err == nil {
		err = rename(part, whole)
	}
	if err != nil {
		_ = os.RemoveAll(part) // what is left goes with the instance
		err = errors.Join(err, os.RemoveAll(whole))
		return rootfs.DiskFull(fmt.Errorf("save memory: %w", err))
	}
	return nil
}

func (g *Ground) save(ctx context.Context, id instance.ID, part string, m vmm.Machine) error {
	dir := filepath.Dir(part)
	if err := errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o700)); err != nil {
		return err
	}
	image, err := os.ReadFile(filepath.Join(dir, imageFileName))
	if err != nil {
		return err
	}
	tools, err := g.marked(dir)
	if err != nil {
		return err
	}
	saved, err := g.write(ctx, id, m, part)
	if err != nil {
		return err
	}
	disk, err := g.top(dir)
	if err != nil {
		return err
	}
	if err := syncFile(disk); err != nil {
		return err
	}
	fi, err := os.Stat(disk)
	if err != nil {
		return err
	}
	return writeManifest(part, manifest{Form: manifestForm, Made: time.Now(), Saved: saved, Image: string(image), Tools: tools, DiskEnd: fi.ModTime()})
}

// write saves a machine with all its memory into dir, durably.
func (g *Ground) write(ctx context.Context, id instance.ID, m vmm.Machine, dir string) (vmm.Saved, error) {
	saver, ok := m.(vmm.Saver)
	if !ok {
		return vmm.Saved{}, errNoSave
	}
	begin := time.Now()
	saved, mem, err := saver.Save(ctx, vmm.Dest{Dir: dir})
	if err != nil {
		return saved, err
	}
	g.log.DebugContext(ctx, SavedMessage, logattr.Instance(id), logattr.Took(time.Since(begin)))
	if mem != nil {
		saved.Memory, err = mem.Store(ctx, filepath.Join(dir, memoryName))
		err = errors.Join(err, mem.Close())
	}
	if err == nil {
		err = saved.Sync()
	}
	return saved, err
}

func writeManifest(dir string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, manifestName), append(data, '\n'), 0o600)
}

// Spend implements instance.Ground.
func (g *Ground) Spend(_ context.Context, id instance.ID) error {
	dir, err := g.folder(id)
	if err != nil {
		return err
	}
	spent := filepath.Join(dir, atomicfile.Prefix+"spent")
	if err := os.RemoveAll(spent); err != nil { // of a daemon that was killed here
		return err
	}
	err = rename(filepath.Join(dir, savedDir), spent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("spend saved memory: %w", err)
	}
	g.work.Go(func() { _ = os.RemoveAll(spent) }) // what is left goes with the instance
	return nil
}

// Saved implements instance.Ground.
func (g *Ground) Saved(id instance.ID) bool {
	dir, err := g.folder(id)
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, savedDir, manifestName))
	return err == nil
}

// wake plans a start from the instance's own memory.
func (g *Ground) wake(id instance.ID, recipe vmm.Spec, img rootfs.Image, own vmm.Disk) (instance.Plan, error) {
	plan := instance.Plan{Kind: instance.Wake, Recipe: recipe}
	dir, err := g.folder(id)
	if err != nil {
		return plan, err
	}
	var m manifest
	data, err := os.ReadFile(filepath.Join(dir, savedDir, manifestName))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return plan, fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	}
	disk, err := g.top(dir)
	if err != nil {
		return plan, err
	}
	fi, err := os.Stat(disk)
	switch {
	case err != nil:
		return plan, fmt.Errorf("%w: %w", vmm.ErrDamaged, err)
	case m.Form != manifestForm:
		return plan, fmt.Errorf("%w: it is of another version of AegisVM", vmm.ErrStale)
	case m.Image != img.Digest:
		return plan, fmt.Errorf("%w: its image was replaced", vmm.ErrStale)
	case !g.tools.has(m.Tools):
		return plan, fmt.Errorf("%w: the programs that it had are gone", vmm.ErrStale)
	case !fi.ModTime().Equal(m.DiskEnd):
		return plan, fmt.Errorf("%w: the disk was written to since", vmm.ErrDamaged)
	}
	plan.Recipe.Disks = g.disks(img.Path, own, m.Tools)
	plan.Source = vmm.Restore{Saved: m.Saved.In(filepath.Join(dir, savedDir))}
	return plan, nil
}

const (
	// startingName marks an instance whose program is being started.
	startingName = "starting"
	// imageFileName holds the digest of the image that the instance's machine has mounted:
	// set-up may replace the one in the home under it.
	imageFileName = "image"
	// toolsFileName holds the toolSet of the instance's machine.
	toolsFileName = "tools"
)

// mark says that a start with that image and those programs has begun.
func (g *Ground) mark(id instance.ID, image string, tools toolSet) error {
	dir, err := g.folder(id)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, imageFileName), []byte(image), 0o600); err != nil {
		return rootfs.DiskFull(err)
	}
	if err := os.WriteFile(filepath.Join(dir, toolsFileName), []byte(tools), 0o600); err != nil {
		return rootfs.DiskFull(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, startingName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return rootfs.DiskFull(err)
	}
	return f.Close()
}

// Started implements instance.Ground.
func (g *Ground) Started(id instance.ID) error {
	dir, err := g.folder(id)
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, startingName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mark %s as started: %w", id, err)
	}
	return nil
}

// CutOff implements instance.Ground.
func (g *Ground) CutOff(id instance.ID) bool {
	dir, err := g.folder(id)
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, startingName))
	return err == nil
}

// rename renames a file or folder so that it survives a crash of the host.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFile(filepath.Dir(to))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
