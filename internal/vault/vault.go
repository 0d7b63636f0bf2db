package vault

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/secret"
)

var _ instance.Secrets = (*Vault)(nil)

// Rows keeps sealed secrets. Package store implements it. What it has answered
// survives a crash of the host. Its methods may be called together.
type Rows interface {
	// Secrets returns the named ones that there are, all if names is nil, by name.
	Secrets(ctx context.Context, names []string) ([]secret.Sealed, error)

	// ListSecrets returns what anybody may know of all secrets, by name.
	ListSecrets(ctx context.Context) ([]secret.Meta, error)

	// SaveSecret adds or replaces a secret, and returns it as it is stored now: one
	// that is replaced keeps its time of creation.
	SaveSecret(ctx context.Context, s secret.Sealed) (secret.Meta, error)

	// DeleteSecret forgets a secret, and reports whether there was one.
	DeleteSecret(ctx context.Context, name string) (existed bool, err error)

	// ResealSecrets replaces key id and box of every secret by what reseal makes of
	// them, all or, after an error, none, and returns how many. What was there before
	// does not stay on the disk. reseal must not call Rows.
	ResealSecrets(ctx context.Context, reseal func(secret.Sealed) (secret.Sealed, error)) (int, error)
}

// Vault is the secrets of one daemon. Its methods may be called together.
type Vault struct {
	path string // of the master key
	rows Rows
	// turn is full while somebody writes: a key that is made or changed must be the one
	// that the rows written meanwhile are sealed with. Who waits for it can give up.
	turn chan struct{}
}

// New returns a vault whose master key is the file at path. It does no I/O.
func New(path string, rows Rows) *Vault {
	return &Vault{path: path, rows: rows, turn: make(chan struct{}, 1)}
}

// begin waits for the turn to write; end gives it back.
func (v *Vault) begin(ctx context.Context) (end func(), err error) {
	select {
	case v.turn <- struct{}{}:
		return func() { <-v.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Set stores a secret, in the place of one of that name if there is one.
func (v *Vault) Set(ctx context.Context, name string, value secret.Value) (secret.Meta, error) {
	if err := secret.CheckName(name); err != nil {
		return secret.Meta{}, err
	}
	if err := secret.CheckValue(value.Reveal()); err != nil {
		return secret.Meta{}, err
	}
	end, err := v.begin(ctx)
	if err != nil {
		return secret.Meta{}, err
	}
	defer end()
	k, err := v.writeKey(ctx, name)
	if err != nil {
		return secret.Meta{}, err
	}
	now := time.Now().UTC()
	return v.rows.SaveSecret(ctx, secret.Sealed{
		Meta: secret.Meta{Name: name, KeyID: k.id, Created: now, Updated: now},
		Box:  k.seal(name, value),
	})
}

// List returns what may be known of all secrets, by name. It needs no key.
func (v *Vault) List(ctx context.Context) ([]secret.Meta, error) { return v.rows.ListSecrets(ctx) }

// Delete forgets a secret. It needs no key.
func (v *Vault) Delete(ctx context.Context, name string) error {
	if err := secret.CheckName(name); err != nil {
		return err
	}
	existed, err := v.rows.DeleteSecret(ctx, name)
	if err == nil && !existed {
		return missingFault([]string{name})
	}
	return err
}

// Resolve implements instance.Secrets.
func (v *Vault) Resolve(ctx context.Context, names []string) (map[string]secret.Value, error) {
	wanted := names
	if slices.Contains(names, instance.AllSecrets) {
		wanted = nil
	}
	for tried := ring(nil); ; {
		rows, err := v.rows.Secrets(ctx, wanted)
		if err != nil {
			return nil, err
		}
		if missing := missingOf(names, rows); len(missing) > 0 {
			return nil, missingFault(missing)
		}
		keys, err := v.keys(len(rows))
		if err != nil {
			return nil, err
		}
		values, err := keys.open(rows, v.path)
		// A rotation may have gone by between rows and keys.
		if !errors.Is(err, errOtherKey) || keys.equal(tried) {
			return values, err
		}
		tried = keys
	}
}

// missingOf returns the names that are not among rows.
func missingOf(names []string, rows []secret.Sealed) []string {
	var missing []string
	for _, n := range names {
		if n != instance.AllSecrets && !slices.ContainsFunc(rows, func(r secret.Sealed) bool { return r.Name == n }) {
			missing = append(missing, n)
		}
	}
	return missing
}

// ring is the keys at hand: the master key's, and before it that of a rotation that has
// not ended.
type ring []*key

// keys reads the keys that n rows need.
func (v *Vault) keys(n int) (ring, error) {
	var keys ring
	// In this order: a rotation that ends in between leaves the next key twice, not none.
	for _, path := range []string{v.nextPath(), v.path} {
		k, err := readMaster(path)
		switch {
		case err == nil:
			keys = append(keys, k)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if len(keys) == 0 && n > 0 {
		return nil, lostKeyFault(n, v.path)
	}
	return keys, nil
}

func (r ring) equal(other ring) bool {
	return slices.EqualFunc(r, other, func(a, b *key) bool { return a.id == b.id })
}

// open opens rows, each with its key. path is for people.
func (r ring) open(rows []secret.Sealed, path string) (map[string]secret.Value, error) {
	values := make(map[string]secret.Value, len(rows))
	for _, row := range rows {
		i := slices.IndexFunc(r, func(k *key) bool { return k.id == row.KeyID })
		if i < 0 {
			return nil, otherKeyFault(row.Name, path)
		}
		value, err := r[i].open(row)
		if err != nil {
			return nil, err
		}
		values[row.Name] = value
	}
	return values, nil
}
