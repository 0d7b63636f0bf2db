// Package launch finds the daemon of a home, and starts it where none runs: what every
// program does that is used on the host (the CLI, the MCP server).
//
//	s, err := launch.Daemon{Home: home, Environ: os.Environ}.Ensure(ctx, nil)
//
// The daemon runs in a session of its own and outlives who started it. One that does not
// start is an *Error with the last lines of its log. The package looks at the home's
// locks and log, and speaks to the daemon through client; it knows nothing else of it.
package launch
