//go:build linux

// Command aegis-harness is PID 1 in every VM. See package pid1.
package main

import (
	"fmt"
	"os"

	"github.com/xfeldman/aegisvm/internal/guest/pid1"
)

func main() {
	err := pid1.Run()
	fmt.Fprintln(os.Stderr, "aegis-harness:", err)
	os.Exit(1) // in a VM, the kernel panics and says so
}
