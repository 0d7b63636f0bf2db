package daemon

import (
	"log/slog"
	"net"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/netstack"
)

// networks makes the host's ends of VMs' networks. It implements instance.Networks.
type networks struct{ log *slog.Logger }

// Check implements instance.Networks.
func (networks) Check(e instance.Egress) error {
	_, err := policyOf(e)
	return err
}

// Open implements instance.Networks.
func (n networks) Open(id instance.ID, spec instance.Spec, denied func(instance.Denial)) (instance.Network, error) {
	policy, err := policyOf(spec.Egress)
	if err != nil {
		return nil, err
	}
	stack, err := netstack.New(netstack.Config{
		Policy: policy,
		Denied: func(d netstack.Denial) {
			denied(instance.Denial{Time: time.Now(), Text: d.String(), Allow: d.Allow})
		},
		Limits: guestLimits(openFiles()),
		Log:    n.log.With(logattr.Instance(id)),
	})
	if err != nil {
		return nil, err
	}
	return network{stack, n.log}, nil
}

// network is a netstack.Network as the core wants it.
type network struct {
	*netstack.Network

	log *slog.Logger
}

// Attach implements instance.Network. That the connection has ended is no news: so has
// the machine.
func (n network) Attach(conn net.Conn) { _ = n.Network.Attach(conn) }

// Crossed implements instance.Network.
func (n network) Crossed() uint64 {
	t := n.Network.Traffic()
	return t.In.Bytes + t.Out.Bytes
}

// Traffic implements instance.Network.
func (n network) Traffic() instance.Traffic {
	t := n.Network.Traffic()
	return instance.Traffic{InBytes: t.In.Bytes, OutBytes: t.Out.Bytes, Accepted: t.Accepted, Opened: t.Opened, Denied: t.Denied}
}

// SetEgress implements instance.Network. One that was not checked leaves all as it was.
func (n network) SetEgress(e instance.Egress) {
	policy, err := policyOf(e)
	if err == nil {
		err = n.SetPolicy(policy)
	}
	if err != nil {
		n.log.Error("change what a guest may reach", logattr.Err(err))
	}
}

func policyOf(e instance.Egress) (netstack.Policy, error) {
	p := netstack.Policy{Mode: netstack.Mode(e.Mode)}
	switch p.Mode {
	case "":
		p.Mode = netstack.Public
		if len(e.Allow) > 0 {
			p.Mode = netstack.None // who names what may be reached means nothing else
		}
	case netstack.Public, netstack.None, netstack.All:
	default:
		return p, fault.New(fault.Invalid, "%q is not a policy of egress", e.Mode).WithHint("it is none, public or all, as in: --egress none")
	}
	for _, text := range e.Allow {
		rule, err := netstack.ParseRule(text)
		if err != nil {
			return p, err
		}
		p.Allow = append(p.Allow, rule)
	}
	return p, nil
}
