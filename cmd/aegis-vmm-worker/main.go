// Aegis-vmm-worker is the process of a VM whose VMM is a library. aegisd starts one for
// each VM; it is not for people. See package worker.
package main

import (
	"os"

	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/worker"
)

func main() { os.Exit(worker.Main(os.Args[1:])) }
