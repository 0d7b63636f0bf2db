package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

// ForkDisk implements vmm.DiskForker.
//
// The nodes of a disk's overlays are numbered after its name: disk, disk.o1, disk.o2. QEMU
// is asked which of them the guest writes to, as an earlier daemon may have forked
// the disk.
func (m *Machine) ForkDisk(ctx context.Context, name, overlay string) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer func() { <-m.op }()
	is, err := m.status(ctx)
	if err != nil {
		return m.blame(ctx, err)
	}
	if is != paused {
		return fault.New(fault.Conflict, "a disk is forked while its machine is paused, and before that is saved")
	}
	top, err := m.topNode(ctx, name)
	if err != nil {
		return err
	}
	if err := qcow2.Create(overlay, top.size, vmm.Layer{Path: "base of " + filepath.Base(overlay), Format: vmm.DiskFormat(top.format)}); err != nil {
		return storeError(ctx, err)
	}
	// Not the caller's context: a command that was sent is performed, and the overlay
	// may not go away under a machine that writes to it. It takes milliseconds.
	if err = m.insert(context.WithoutCancel(ctx), top, overlay); err == nil {
		return nil
	}
	_, refused := errors.AsType[*qmpError](err)
	if err = m.blame(ctx, err); refused || errors.Is(err, vmm.ErrEnded) {
		err = errors.Join(err, os.Remove(overlay))
	}
	return err
}

// topNode is the node that a disk's guest writes to.
type topNode struct {
	name   string // "disk", or "disk.o2"
	next   node   // what the next overlay's will be
	format string
	size   size.Bytes
}

func (m *Machine) topNode(ctx context.Context, disk string) (*topNode, error) {
	var devices []struct {
		Inserted struct {
			Node  string `json:"node-name"`
			RO    bool   `json:"ro"`
			Image struct {
				Format string     `json:"format"`
				Size   size.Bytes `json:"virtual-size"`
			} `json:"image"`
		} `json:"inserted"`
	}
	if err := m.monitor().execute(ctx, "query-block", nil, &devices); err != nil {
		return nil, m.blame(ctx, err)
	}
	for _, d := range devices {
		if i := d.Inserted; diskOf(i.Node) == disk && !i.RO {
			n, err := m.nextNode(ctx, disk)
			return &topNode{name: i.Node, next: n, format: i.Image.Format, size: i.Image.Size}, err
		}
	}
	return nil, fault.New(fault.NotFound, "the machine has no writable disk %q", disk)
}

// diskOf returns the name of the disk that a node belongs to.
func diskOf(node string) string {
	name, _, _ := strings.Cut(node, ".")
	return name
}

// nextNode returns the node of a disk's next overlay. One that was left over by a
// daemon that died is passed over.
func (m *Machine) nextNode(ctx context.Context, disk string) (node, error) {
	var nodes []struct {
		Node string `json:"node-name"`
	}
	if err := m.monitor().execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return node{}, m.blame(ctx, err)
	}
	last := 0
	for _, n := range nodes {
		number, _, _ := strings.Cut(strings.TrimPrefix(n.Node, disk+".o"), ".")
		if i, err := strconv.Atoi(number); err == nil {
			last = max(last, i)
		}
	}
	return node{name: fmt.Sprintf("%s.o%d", disk, last+1), format: vmm.QCOW2}, nil
}

// insert puts an overlay on a node. What stays in QEMU after an error is not used.
func (m *Machine) insert(ctx context.Context, top *topNode, overlay string) error {
	f, err := os.OpenFile(overlay, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer closeAll(f)
	mon := m.monitor()
	var set struct {
		ID int `json:"fdset-id"`
	}
	if err := mon.executeWith(ctx, "add-fd", nil, f, &set); err != nil {
		return err
	}
	n := top.next
	n.set = set.ID
	steps := []step{
		{"blockdev-add", n.file(), "blockdev-del", map[string]any{"node-name": n.fileNode()}},
		{"blockdev-add", n.image(), "blockdev-del", map[string]any{"node-name": n.name}},
		{"blockdev-snapshot", map[string]any{"node": top.name, "overlay": n.name}, "", nil},
	}
	done := []step{{undo: "remove-fd", undoArgs: map[string]any{"fdset-id": set.ID}}}
	for _, s := range steps {
		if err := mon.execute(ctx, s.do, s.args, nil); err != nil {
			for _, d := range slices.Backward(done) {
				_ = mon.execute(ctx, d.undo, d.undoArgs, nil) // the first error is told
			}
			return err
		}
		done = append(done, s)
	}
	return nil
}

// step is a command of QEMU's and the one that undoes it.
type step struct {
	do       string
	args     any
	undo     string
	undoArgs any
}
