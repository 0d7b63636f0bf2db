// Aegis-mcp is AegisVM's MCP server on the host, over stdio. `aegis mcp install`
// registers it with an LLM client.
package main

import (
	"os"

	"github.com/xfeldman/aegisvm/internal/mcpserver"
)

func main() { os.Exit(mcpserver.Main(os.Args[1:])) }
