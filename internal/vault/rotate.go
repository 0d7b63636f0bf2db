package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// nextPath is where a rotation keeps the next master key.
func (v *Vault) nextPath() string { return v.path + ".next" }

// Recover tidies up after a daemon that was killed, and says what keeps secrets from
// being used. It is called once, before the vault is used; the vault can be used
// whatever it returns.
func (v *Vault) Recover(ctx context.Context) error {
	end, err := v.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := atomicfile.Sweep(filepath.Dir(v.path)); err != nil {
		return fmt.Errorf("tidy up beside the master key: %w", err)
	}
	all, err := v.settle(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	keys, err := v.keys(len(all))
	if err != nil {
		return err
	}
	return keys.check(all, v.path)
}

// Rotate makes a new master key, seals all secrets anew with it, and returns how many.
// After an error, and wherever it is killed, all secrets can be opened as before.
func (v *Vault) Rotate(ctx context.Context) (int, error) {
	end, err := v.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	old, err := v.writeKey(ctx, "")
	if err != nil {
		return 0, err
	}
	next, err := makeMaster(v.nextPath())
	if err != nil {
		return 0, err
	}
	n, err := v.rows.ResealSecrets(ctx, func(row secret.Sealed) (secret.Sealed, error) {
		value, err := old.open(row)
		if err != nil {
			return row, err
		}
		row.KeyID, row.Box = next.id, next.seal(row.Name, value)
		return row, nil
	})
	if err != nil {
		// A commit that fails may have been one all the same: the rows tell.
		_, settled := v.settle(context.WithoutCancel(ctx))
		return 0, errors.Join(err, settled)
	}
	return n, v.promote()
}

// promote puts the next master key in the place of the old one, which is gone then.
func (v *Vault) promote() error {
	if err := atomicfile.Rename(v.nextPath(), v.path); err != nil {
		return unwritableFault(v.path, err)
	}
	return nil
}

// settle ends a rotation that was not ended, forwards or backwards, and returns what
// secrets there are. The caller has the turn.
func (v *Vault) settle(ctx context.Context) ([]secret.Meta, error) {
	all, err := v.rows.ListSecrets(ctx)
	if err != nil {
		return nil, err
	}
	next, err := readMaster(v.nextPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return all, nil
	case err != nil:
		return nil, err
	}
	isNext := func(m secret.Meta) bool { return m.KeyID == next.id }
	switch n := len(slices.DeleteFunc(slices.Clone(all), isNext)); {
	case len(all) == 0 || n == len(all): // not one
		if err := os.Remove(v.nextPath()); err != nil {
			return nil, unwritableFault(v.nextPath(), err)
		}
	case n == 0:
		return all, v.promote()
	default: // no rotation leaves that behind
		return nil, fault.New(fault.Unavailable, "some secrets are sealed with %s, and some are not", v.nextPath()).By(fault.Host).
			WithHint("keep both files; delete the secrets that cannot be read, and set them again")
	}
	return all, nil
}

// writeKey returns the key to seal the secret name with, which is that of all others,
// and makes it if there are none. The caller has the turn.
func (v *Vault) writeKey(ctx context.Context, name string) (*key, error) {
	all, err := v.settle(ctx)
	if err != nil {
		return nil, err
	}
	k, err := readMaster(v.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(all) > 0:
		return nil, lostKeyFault(len(all), v.path)
	case errors.Is(err, fs.ErrNotExist):
		return makeMaster(v.path)
	case err != nil:
		return nil, err
	}
	others := slices.DeleteFunc(all, func(m secret.Meta) bool { return m.Name == name })
	return k, ring{k}.check(others, v.path)
}

// check says whether a key of all secrets is at hand. path is for people.
func (r ring) check(all []secret.Meta, path string) error {
	for _, m := range all {
		if !slices.ContainsFunc(r, func(k *key) bool { return k.id == m.KeyID }) {
			return otherKeyFault(m.Name, path)
		}
	}
	return nil
}
