// Command aegis-mcp-guest gives an agent in a VM the Guest API as tools, over stdin and
// stdout. See package mcpguest.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/mcpguest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := mcpguest.Serve(ctx, os.Getenv)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "aegis-mcp-guest:", err)
		os.Exit(1)
	}
}
