// Aegisd is AegisVM's daemon. It needs no arguments; `aegis up` starts it.
package main

import (
	"os"

	"github.com/xfeldman/aegisvm/internal/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:], nil)) }
