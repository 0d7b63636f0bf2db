package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// product is AegisVM as users have it: a daemon, started by `aegis up`, and its client.
type product struct {
	home   paths.Home
	client *client.Client
}

// start makes a home with a daemon, whose environment has env in addition.
func (w *world) start(ctx context.Context, name string, env ...string) (*product, error) {
	home, err := w.makeHome(name, w.conf.Home.Kernel())
	if err != nil {
		return nil, err
	}
	if err := w.program(ctx, home, env, "up"); err != nil {
		return nil, err
	}
	return &product{home: home, client: client.New(home.Socket())}, nil
}

// program runs a command of aegis in a home, with env in addition to what this process has.
func (w *world) program(ctx context.Context, home paths.Home, env []string, args ...string) error {
	aegis, err := paths.Program("aegis")
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the program is missing").By(fault.Host).WithHint("install AegisVM again")
	}
	cmd := exec.CommandContext(ctx, aegis, args...)
	cmd.Env = append(os.Environ(), "AEGIS_HOME="+string(home), "AEGIS_ROUTER=off", "AEGIS_LOG_LEVEL=debug", "AEGIS_LOG_FORMAT=json")
	cmd.Env = append(cmd.Env, env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("aegis %s in %s: %w\n%s", args[0], home, err, said.Bytes())
	}
	return nil
}

// product returns the daemon of most figures.
func (w *world) product(ctx context.Context) (*product, error) {
	if w.warm == nil {
		p, err := w.start(ctx, warmHome)
		if err != nil {
			return nil, err
		}
		if err := p.run(ctx, nil); err != nil { // makes the template
			return nil, err
		}
		w.warm = p
	}
	return w.warm, nil
}

// never is for instances that sleep only when they are told to.
var never = int64(0)

// run runs true in a machine of its own, up to its exit status. running is called when the
// program runs; nil is nobody.
func (p *product) run(ctx context.Context, running func()) error {
	att, err := p.client.Run(ctx, api.RunRequest{Command: []string{"true"}})
	if err != nil {
		return err
	}
	if running != nil {
		running()
	}
	return ended(att.Stream(ctx, client.Streams{}))
}

// ended returns what is wrong with how true has ended.
func ended(status int, err error) error {
	if err == nil && status != 0 {
		err = fmt.Errorf("true ended with status %d", status)
	}
	return err
}

// launch makes an instance, and returns when its program runs.
func (p *product) launch(ctx context.Context, handle string, ports []api.ExposeRequest, command ...string) (api.Created, error) {
	made, _, err := p.client.Launch(ctx, api.CreateRequest{
		Handle: handle, Command: command, Expose: ports, PauseAfterS: &never, StopAfterS: &never,
	})
	return made, err
}

// delete removes an instance.
func (p *product) delete(ctx context.Context, ref string) error {
	_, err := p.client.Delete(ctx, ref)
	return err
}

// do ignores what a change of state answers: that it did not fail is enough.
func do(_ api.Outcome, err error) error { return err }

var errNoPort = errors.New("the instance has no port")
