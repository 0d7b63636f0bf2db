// Aegis-agent is the LLM agent that lives in a VM. See package agent.
package main

import (
	"os"

	"github.com/xfeldman/aegisvm/internal/agent"
)

func main() { os.Exit(agent.Main(os.Stderr, os.Getenv)) }
