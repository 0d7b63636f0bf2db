// Package mcpguest is the MCP server of a VM: it gives an agent there the Guest API as
// tools, over stdin and stdout. What it may do the host decides; a refusal is a tool's
// error, with the reason and what to do.
//
// It runs in the guest, as a user's program, and knows no host code: of AegisVM it imports
// the wire's types and leaves.
package mcpguest
