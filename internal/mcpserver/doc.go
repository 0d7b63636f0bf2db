// Package mcpserver lets language models use AegisVM: it is the MCP server on the host,
// over stdio, that `aegis mcp install` registers with an LLM client. (The one inside of
// VMs is another program.)
//
//	s := mcpserver.New(mcpserver.Config{Client: c, Launch: start, Log: log})
//	err := s.Run(ctx, &mcp.StdioTransport{})
//
// A tool is a value of type tool: typed input and output, whose JSON schemas are made
// from the Go types, and a function over package client, which is all that the package
// knows of the daemon. Calls run side by side. What happens around each of them stands
// in one place, tool.go: a daemon that does not run is started, progress is told to
// clients that asked for it, and errors become results that a model can read: the cause,
// and what to do next. A call that its client cancels, or whose client goes, ends what
// it began in the VM.
//
// A model has little room to read. What it gets of output, logs and files is bounded
// (window.go), says what it leaves out, and where that is.
package mcpserver
