package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

// The statuses of the program. While the guest runs they are libkrun's: 0 when it has
// turned itself off.
const (
	failed = 1
	usage  = 2
)

// Main runs the program and returns its status.
func Main(args []string) int {
	switch {
	case len(args) == 1 && args[0] == recipe.Run:
		return run()
	case len(args) == 2 && args[0] == recipe.Probe:
		return probe(args[1])
	}
	say("this program is started by aegisd: usage: " + recipe.Program + " " + recipe.Run + " | " + recipe.Probe + " LIBRARY")
	return usage
}

func run() int {
	r, err := recipe.Read(os.Stdin)
	if err != nil {
		say(err.Error())
		return failed
	}
	confine()
	say(become(r).Error())
	return failed
}

// say writes a line to stderr, and gives up where that is a full pipe that nobody
// reads.
func say(line string) { _, _ = syscall.Write(2, []byte(recipe.Program+": "+line+"\n")) }

const (
	// niceness puts guests behind the daemon that serves them.
	niceness = 2
	// maxFiles is far above the dozen descriptors that a VM uses.
	maxFiles = 256
)

// confine bounds the process. All of it is a second line of defence: a VM is as good
// without.
func confine() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxFiles, Max: maxFiles})
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness)
	confineMore()
}

// probe tells what there is to know about a library without a VM.
func probe(name string) int {
	var f recipe.Facts
	lib, missing, err := open(name)
	if err != nil {
		f.Error = err.Error()
	} else {
		f.Path = loaded(name)
		f.Version = version(f.Path)
		f.Missing = missing
		slices.Sort(f.Missing)
		f.Lacks = lacks(lib)
	}
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		say(fmt.Sprintf("write: %v", err))
		return failed
	}
	return 0
}

// lacks returns the devices that a library was built without.
func lacks(lib *library) []string {
	if lib.hasFeature == nil {
		return nil
	}
	var names []string
	for _, device := range []struct {
		name    string
		feature uint64
	}{{"net", featureNet}, {"blk", featureBlk}} {
		if lib.hasFeature(device.feature) == 0 {
			names = append(names, device.name)
		}
	}
	return names
}
