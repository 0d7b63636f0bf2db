package recipe

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Program is the name of the worker.
const Program = "aegis-vmm-worker"

// The first argument of the worker.
const (
	Run   = "run"   // read a Recipe from stdin and become its VM
	Probe = "probe" // load the library that the next argument names and write Facts to stdout
)

// Recipe is a VM. Files are numbers of descriptors that the worker inherits.
type Recipe struct {
	Library string // for dlopen: a name or a path
	ID      string
	VCPUs   int
	Memory  int64 // in MiB
	Kernel  string
	Format  KernelFormat
	Initrd  string // "" is none
	Cmdline string
	Disks   []Disk // in the order in which the guest gets them
	MAC     []byte // 6 bytes, or none for a VM without a network card
	Account *Account

	Console int // where the serial console is written to
	Life    int // listening socket: connections to it end with the process
	Ctl     int // listening socket of the guest's port
	Net     int // listening socket of the network card, where there is one
}

// Disk is a raw disk.
type Disk struct {
	Name     string
	Path     string
	ReadOnly bool
}

// Account is an unprivileged user of the host.
type Account struct{ UID, GID uint32 }

// KernelFormat is the form of a kernel, as libkrun numbers them.
type KernelFormat uint32

// The formats.
const (
	Image KernelFormat = 0 // of arm64, as it is in memory
	ELF   KernelFormat = 1
)

// maxRecipe bounds what a worker reads: it has to fit into a pipe that nobody reads yet.
const maxRecipe = 60 << 10

// Encode returns a recipe as a worker reads it.
func (r *Recipe) Encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxRecipe {
		err = fault.New(fault.TooLarge, "a VM that takes %d bytes to describe", len(b))
	}
	return b, err
}

// Read reads a recipe.
func Read(from io.Reader) (*Recipe, error) {
	var r Recipe
	if err := json.NewDecoder(io.LimitReader(from, maxRecipe)).Decode(&r); err != nil {
		return nil, fmt.Errorf("read the recipe: %w", err)
	}
	return &r, nil
}

// Facts are about a library.
type Facts struct {
	Error   string   `json:",omitempty"` // why it does not load, in the words of dlopen
	Path    string   `json:",omitempty"` // of its file, "" if the system does not tell
	Version string   `json:",omitempty"` // as the name of its file has it, such as "1.18.0"
	Missing []string `json:",omitempty"` // functions that it lacks
	Lacks   []string `json:",omitempty"` // devices that it was built without: "net", "blk"
}

// Hello is the line that a worker writes to each connection to Life. The first can
// only be read once the VM is about to start.
type Hello struct{ PID int }
