// Package fault is the one error type that crosses AegisVM's borders.
//
// An Error says what kind of failure it is, what happened, and what the person
// who meets it can type next. The Kind survives the wire: each edge maps it in
// one table, to an HTTP status (httpapi), an exit status (cli) or an MCP error
// (mcpserver). Everything below the edges only creates and wraps errors.
//
// The package is a leaf: it imports nothing of AegisVM.
package fault
