package sidecar

import (
	"context"
	"encoding/json"
	"os"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// feed writes to a sidecar the secrets that its file asks for, at once and whenever they
// have changed, until it has ended. One that does not read is waited for; it gets the
// newest then.
func (k *keeper) feed(out *os.File, ended <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var names []string
	for last := ""; ; {
		if k.program.Config != "" {
			if asked, ok := k.s.o.Asks(k.post.group.Handle, k.program.Config); ok {
				names = asked
			}
		}
		line, err := k.secrets(ctx, names)
		if err != nil {
			k.s.o.Log.WarnContext(ctx, "secrets of a sidecar", logattr.Handle(k.post.group.Handle), logattr.Part(k.program.Name), logattr.Err(err))
		} else if line != last {
			if _, err := out.WriteString(line); err != nil {
				return // it has ended, or has closed the descriptor
			}
			last = line
		}
		select {
		case <-k.nudged:
		case <-ended:
			return
		}
	}
}

// secrets returns the line for the sidecar, which asks for names.
func (k *keeper) secrets(ctx context.Context, names []string) (string, error) {
	values := map[string]string{}
	for _, name := range names {
		v, err := k.s.o.Resolve(ctx, []string{name})
		if fault.KindOf(err) == fault.NotFound {
			continue // it may be stored later
		}
		if err != nil {
			return "", err
		}
		values[name] = v[name].Reveal()
	}
	b, err := json.Marshal(struct {
		Secrets map[string]string `json:"secrets"`
	}{values})
	return string(b) + "\n", err
}
