package gateway

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// Kind is one kind of channels.
type Kind struct {
	// Name is the key of its section in gateway.json, and the channel of its sessions.
	Name string
	// Open makes a channel as its section says, without I/O. A section that is wrong is
	// fault.Invalid, and the configuration as a whole is refused then. One that is right
	// but whose secret is not there yet is fault.Unavailable: it is opened again when
	// that changes.
	Open func(log *slog.Logger, section json.RawMessage, keys Keys) (Channel, error)
}

// Channel is a place where people and the agent talk. A Line runs it: Receive in one
// goroutine, Serve in one for each session, all at the same time.
type Channel interface {
	// Receive passes what people write on to line until ctx ends. When it returns
	// before that it is called again after a pause.
	Receive(ctx context.Context, line *Line) error
	// Knows tells whether there is such a session. What the agent says elsewhere is
	// dropped. It does no I/O.
	Knows(session string) bool
	// Serve shows what comes in a session until ctx ends. It calls Shown for each answer.
	Serve(ctx context.Context, s *Session)
}

// Keys finds what sections refer to by name.
type Keys struct {
	stored map[string]string // by name, as the daemon has told them
	env    func(string) (string, bool)
}

// NewKeys returns Keys of stored secrets and an environment.
func NewKeys(stored map[string]string, env func(string) (string, bool)) Keys {
	return Keys{stored, env}
}

// Token returns the secret that a section has in one of three ways: as the name of a
// stored secret in the key field+"_secret", as that of an environment variable in
// field+"_env", or itself in field.
func (k Keys) Token(field, stored, env, plain string) (secret.Value, error) {
	given := 0
	for _, s := range []string{stored, env, plain} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return secret.Value{}, fault.New(fault.Invalid, "%s_secret, %s_env, %s: %d of them are set", field, field, field, given).
			WithHint("set one, best %s_secret with the name of a secret", field)
	case plain != "":
		return secret.New(plain), nil
	case env != "":
		if v, ok := k.env(env); ok && v != "" {
			return secret.New(v), nil
		}
		return secret.Value{}, fault.New(fault.Unavailable, "there is no variable %s in the environment", env).
			WithHint("give the instance a secret of that name (--secret %s), or name a stored one in %s_secret", env, field)
	}
	if v, ok := k.stored[stored]; ok && v != "" {
		return secret.New(v), nil
	}
	if v, ok := k.env(stored); ok && v != "" {
		return secret.New(v), nil // the instance's own secrets come that way
	}
	return secret.Value{}, fault.New(fault.Unavailable, "the secret %s is not set yet", stored).
		WithHint("aegis secret set %s", stored)
}
