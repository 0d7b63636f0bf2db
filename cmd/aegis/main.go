// Aegis is AegisVM's command line. See: aegis help.
package main

import (
	"os"

	"github.com/xfeldman/aegisvm/internal/bench"
	"github.com/xfeldman/aegisvm/internal/cli"
	"github.com/xfeldman/aegisvm/internal/drivers"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Host{Accelerator: drivers.Accelerator, Bench: bench.Run}))
}
