package qemu

import (
	"encoding/json"
	"fmt"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// node is a layer of a disk as QEMU knows it: a node for the format over one for
// the file.
type node struct {
	name     string
	set      int // fdset of the file
	format   vmm.DiskFormat
	readOnly bool
	backing  string // node under a qcow2 file, or "" for none
}

// block is an argument of -blockdev and blockdev-add.
type block struct {
	Driver   string  `json:"driver"`
	Node     string  `json:"node-name"`
	Filename string  `json:"filename,omitempty"`
	Locking  string  `json:"locking,omitempty"`
	File     string  `json:"file,omitempty"`
	Backing  backing `json:"backing,omitzero"`
	ReadOnly bool    `json:"read-only"`
	Discard  string  `json:"discard"`
}

// backing is always said of a qcow2 file: QEMU would open what the file's header
// names, which whoever broke out of a guest can write.
type backing struct {
	said bool
	node string
}

// MarshalJSON implements json.Marshaler.
func (b backing) MarshalJSON() ([]byte, error) {
	if b.node == "" {
		return []byte("null"), nil
	}
	return json.Marshal(b.node)
}

func (n node) fileNode() string { return n.name + ".file" }

// file returns the node for the file. Files that are shared are not locked.
func (n node) file() block {
	locking := "on"
	if n.readOnly {
		locking = "off"
	}
	return block{
		Driver: "file", Node: n.fileNode(), Filename: fmt.Sprintf("/dev/fdset/%d", n.set),
		Locking: locking, ReadOnly: n.readOnly, Discard: "unmap",
	}
}

// image returns the node for the format.
func (n node) image() block {
	b := block{Driver: string(n.format), Node: n.name, File: n.fileNode(), ReadOnly: n.readOnly, Discard: "unmap"}
	if n.format == vmm.QCOW2 {
		b.Backing = backing{said: true, node: n.backing}
	}
	return b
}

func (b block) json() string {
	out, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and booleans
	}
	return string(out)
}
