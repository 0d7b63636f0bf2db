package instance

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/size"
)

// AllSecrets among the names of an instance's secrets stands for all that are stored.
const AllSecrets = "*"

// maxVariable bounds NAME=VALUE and the NUL behind it: the kernel starts no program
// with more (MAX_ARG_STRLEN, 32 pages of 4 KiB).
const maxVariable = 128 * size.KiB

// Granted is which secrets an instance's program and execs are given from now on.
type Granted struct {
	Names   []string
	Restart bool // its program runs, and was started with others
}

// completeSecrets orders the names of secrets and says what is wrong with them.
func (s *Spec) completeSecrets() error {
	s.Secrets = union(s.Secrets, nil)
	for _, name := range s.Secrets {
		if name == AllSecrets {
			continue // where env has one of them, it is env's value that counts
		}
		if err := secret.CheckName(name); err != nil {
			return err
		}
		if _, twice := s.Env[name]; twice {
			return fault.New(fault.Invalid, "%s is to be a secret and has a value in the environment too", name).
				WithHint("leave out either --secret %s or --env %s", name, name)
		}
	}
	return nil
}

// union returns the names of both, each once, in order.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// environment returns the variables of a process, KEY=VALUE in a stable order: the
// secrets of these names as they are stored now, over them those of envs, of which
// later ones count. What it returns is for the guest alone.
func (w *World) environment(ctx context.Context, secrets, command []string, envs ...map[string]string) ([]string, error) {
	all := map[string]string{}
	if len(secrets) > 0 {
		values, err := w.Secrets.Resolve(ctx, secrets)
		if err != nil {
			return nil, err
		}
		for name, v := range values {
			if err := fits(name, v); err != nil {
				return nil, err
			}
			all[name] = v.Reveal()
		}
	}
	for _, env := range envs {
		maps.Copy(all, env)
	}
	whole := Spec{Command: command, Env: all}
	if len(secrets) > 0 && whole.bulk() > MaxCommand {
		return nil, fault.New(fault.Invalid, "command, environment and secrets of %v are too large together", whole.bulk()).
			WithHint("keep them under %v; ask for fewer secrets, each by its name", MaxCommand)
	}
	return envList(all), nil
}

// fits says why a secret cannot be a variable of an environment.
func fits(name string, v secret.Value) error {
	const other = "a program gets such data through a file or its stdin (aegis cp, aegis run -i); ask for other secrets by their names"
	switch {
	case len(name)+v.Len()+len("=\x00") > int(maxVariable):
		return fault.New(fault.Invalid, "the secret %s of %v is too large for an environment variable: Linux allows %v",
			name, size.Bytes(v.Len()), maxVariable).WithHint(other)
	case strings.ContainsRune(v.Reveal(), 0):
		return fault.New(fault.Invalid, "the secret %s has a NUL in it, which no environment variable can have", name).
			WithHint(other)
	}
	return nil
}

// checkSecrets says whether a start of spec would get its secrets. It is asked before
// anything is made.
func (w *World) checkSecrets(ctx context.Context, spec Spec) error {
	_, err := w.environment(ctx, spec.Secrets, spec.Command, spec.Env)
	return err
}

// SetSecrets changes which secrets an instance's program is given at its next start,
// and its execs from now on.
func (s *Set) SetSecrets(ctx context.Context, ref string, names []string) (Granted, error) {
	return s.grant(ctx, ref, &grant{names: names})
}

// AddSecrets adds to the secrets of an instance, which must be stopped.
func (s *Set) AddSecrets(ctx context.Context, ref string, names []string) (Granted, error) {
	return s.grant(ctx, ref, &grant{names: names, more: true})
}

// grant is a change of an instance's secrets on its way to the actor.
type grant struct {
	names []string
	more  bool // in addition to those it has; only while it is stopped
	reply chan grantReply
}

type grantReply struct {
	Granted

	err error
}

func (s *Set) grant(ctx context.Context, ref string, g *grant) (Granted, error) {
	a, err := s.find(ref)
	if err != nil {
		return Granted{}, err
	}
	spec := a.spec
	spec.Secrets = g.names
	if err := spec.completeSecrets(); err != nil {
		return Granted{}, err
	}
	if err := s.world.checkSecrets(ctx, spec); err != nil {
		return Granted{}, err
	}
	g.names, g.reply = spec.Secrets, make(chan grantReply, 1)
	if err := a.send(ctx, request{grant: g}); err != nil {
		return Granted{}, s.refuse(a, err)
	}
	r := <-g.reply // at once: the actor does nothing else meanwhile
	return r.Granted, s.refuse(a, r.err)
}

// take is the actor's part of a grant. It is remembered before it is answered.
func (g *grant) take(a *actor) {
	record := a.record
	record.Spec.Secrets = g.names
	if g.more {
		record.Spec.Secrets = union(a.record.Spec.Secrets, g.names)
	}
	var err error
	switch {
	case a.snap.State == Erasing:
		err = ErrDeleted
	case g.more && a.snap.State != Stopped:
		err = fault.New(fault.Conflict, "%s is %s", a.spec.Handle, a.snap.State.Wire()).
			WithHint("aegis instance restart %s", a.spec.Handle)
	case !a.spec.Ephemeral && !a.pending:
		err = a.world.Store.SaveInstance(context.Background(), record)
	}
	if err == nil {
		a.record = record
		a.attend()
		a.refresh() // who is answered sees what was done
	}
	names := a.record.Spec.Secrets
	g.reply <- grantReply{Granted{names, a.snap.State != Stopped && !slices.Equal(names, a.given)}, err}
}
