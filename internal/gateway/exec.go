package gateway

import (
	"context"
	"io"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// Exec runs a command line in the VM's shell, and returns its exit status. out gets what
// it writes.
func (l *Line) Exec(ctx context.Context, command string, out io.Writer) (int, error) {
	attach, err := l.agent.Exec(ctx, l.ref, api.ExecRequest{Command: []string{"/bin/sh", "-c", command}})
	if err != nil {
		return 0, err
	}
	return attach.Stream(ctx, client.Streams{Stdout: out, Stderr: out})
}
