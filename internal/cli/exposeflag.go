package cli

import (
	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/api"
)

// exposeFlags are --expose and the --bind that goes for all of them.
type exposeFlags struct {
	ports []api.ExposeRequest
	bind  string
}

// add adds --expose and --bind.
func (e *exposeFlags) add(f *pflag.FlagSet) {
	f.Var(exposeFlag{e}, "expose", "open `[PUBLIC:]GUEST[/http|tcp]`, a port of the VM, on this host; without PUBLIC on any port (repeat)")
	f.StringVar(&e.bind, "bind", "", "`ADDRESS` of this host on which exposed ports are open (default 127.0.0.1)")
}

func (e *exposeFlags) requests() []api.ExposeRequest {
	for i := range e.ports {
		e.ports[i].Bind = e.bind
	}
	return e.ports
}

// exposeFlag is --expose.
type exposeFlag struct{ all *exposeFlags }

func (f exposeFlag) Set(s string) error {
	req, err := api.ParseExpose(s)
	if err != nil {
		return err
	}
	f.all.ports = append(f.all.ports, req)
	return nil
}

func (exposeFlag) String() string { return "" }
func (exposeFlag) Type() string   { return "port" }
