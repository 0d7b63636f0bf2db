package cli

import (
	"fmt"
	"strconv"
	"strings"

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
	req, err := parseExpose(s)
	if err != nil {
		return err
	}
	f.all.ports = append(f.all.ports, req)
	return nil
}

func (exposeFlag) String() string { return "" }
func (exposeFlag) Type() string   { return "port" }

// parseExpose reads [PUBLIC:]GUEST[/PROTOCOL].
func parseExpose(s string) (api.ExposeRequest, error) {
	var req api.ExposeRequest
	ports, protocol, ok := strings.Cut(s, "/")
	if ok && protocol != "tcp" && protocol != "http" {
		return req, fmt.Errorf("%q is not a protocol: http or tcp", protocol)
	}
	req.Protocol = protocol
	public, guest, ok := strings.Cut(ports, ":")
	if !ok {
		guest = public
	}
	var err error
	if req.Port, err = parsePort(guest); err != nil {
		return req, err
	}
	if ok {
		req.PublicPort, err = parsePort(public)
	}
	return req, err
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port: 1 to 65535", s)
	}
	return int(n), nil
}
