// Package client is the Go client of AegisVM's daemon, and the only way in for its
// own CLI and tools.
//
//	c := client.New(socket) // $AEGIS_HOME/aegisd.sock
//	attach, err := c.Run(ctx, api.RunRequest{Command: []string{"uname", "-a"}})
//	status, err := attach.Stream(ctx, client.Streams{Stdout: os.Stdout, Stderr: os.Stderr})
//
// A context bounds a call. Every error that the daemon or the lack of one causes is
// an *Error: what happened, whose fault it is, and what to type next. Where no
// daemon runs it wraps ErrNotRunning.
package client
