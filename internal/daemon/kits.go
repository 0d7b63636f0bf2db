package daemon

import (
	"context"
	"errors"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/kit"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/sidecar"
	"github.com/xfeldman/aegisvm/internal/vault"
)

// kits is kits and sidecars as core and API see them. It implements instance.Kits and
// httpapi.Kits.
type kits struct {
	*kit.Finder

	config     kit.Config
	sidecars   *sidecar.Supervisor
	workspaces instance.Workspaces
}

// openKits ends what an earlier daemon left of sidecars, and makes what runs them.
func (d *daemon) openKits(ctx context.Context, shares instance.Workspaces) {
	home := d.Config.Home
	finder, config := kit.NewFinder(home), kit.NewConfig(home)
	d.kits = &kits{Finder: finder, config: config, workspaces: shares}
	d.kits.sidecars = sidecar.New(sidecar.Options{
		Home: home, Log: d.Log, Lookup: finder.Lookup, Dir: config.Ensure,
		Asks: func(handle, file string) ([]string, bool) {
			b, err := config.Read(handle, file)
			if err != nil {
				return nil, true // it is not there, or not to be read: it asks for none
			}
			return kit.SecretNames(b)
		},
		Resolve: d.secrets.Resolve,
		Tell: func(id, text string) {
			d.Log.DebugContext(ctx, "sidecar", logattr.Instance(id), logattr.Why(text)) // all there is of a run's
			d.set.Remark(instance.ID(id), text)                                         // the set is there: it wants it
		},
	})
	d.parts.push("sidecars", func(context.Context) error { return d.kits.sidecars.Close() })
	if err := d.kits.sidecars.Recover(ctx); err != nil {
		d.Log.ErrorContext(ctx, "sidecars", logattr.Err(err)) // what cannot be killed hangs, and keeps no instance from its user
	}
}

// sweepKits removes what an earlier daemon left of runs with a kit.
func (d *daemon) sweepKits(ctx context.Context) {
	err := d.kits.config.Sweep(func(handle string) bool {
		_, err := d.set.Get(handle)
		return err == nil
	})
	if err != nil {
		d.Log.WarnContext(ctx, "sweep the files of kits", logattr.Err(err))
	}
}

// Apply implements instance.Kits.
func (k *kits) Apply(spec *instance.Spec) error {
	found, err := k.Get(spec.Kit.Name)
	if err != nil {
		return err
	}
	spec.Kit = instance.Kit{Name: found.Name, Version: found.Version, Programs: found.Image.Inject}
	for _, s := range found.Sidecars {
		own := instance.Sidecar{Program: s.Binary}
		if s.Config != nil {
			own.Config = s.Config.Path
		}
		spec.Kit.Sidecars = append(spec.Kit.Sidecars, own)
	}
	if len(spec.Command) == 0 {
		spec.Command = found.Defaults.Command
	}
	if spec.Image == "" {
		spec.Image = found.Image.Base
	}
	if spec.Capabilities == nil {
		spec.Capabilities = found.Defaults.Capabilities
	}
	return nil
}

// Furnish implements instance.Kits.
func (k *kits) Furnish(id instance.ID, spec instance.Spec) error {
	found, err := k.Get(spec.Kit.Name)
	if err != nil {
		return err
	}
	if err := k.furnishWorkspace(id, spec.Folders, found.Config); err != nil {
		return err
	}
	for _, s := range found.Sidecars {
		if s.Config == nil || s.Config.Default == nil {
			continue
		}
		if err := k.config.Begin(spec.Handle, s.Config.Path, s.Config.Default); err != nil {
			return err
		}
	}
	return nil
}

// furnishWorkspace writes the kit's own files.
func (k *kits) furnishWorkspace(id instance.ID, folders instance.Folders, list []kit.File) (err error) {
	if len(list) == 0 || folders.ReadOnly {
		return nil
	}
	files, err := k.workspaces.Files(id, folders)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	for _, f := range list {
		if f.Default == nil {
			continue
		}
		_, err := files.Read(f.Path)
		switch fault.KindOf(err) { //nolint:exhaustive // what is too large, or no file, is there
		case fault.NotFound:
			if err := files.Write(f.Path, f.Default.Reader()); err != nil {
				return err
			}
		case fault.Denied:
			return err // it leads out of the workspace
		}
	}
	return nil
}

// Attend implements instance.Kits.
func (k *kits) Attend(a instance.Attendance) {
	g := sidecar.Group{ID: string(a.ID), Handle: a.Handle, Secrets: a.Secrets}
	for _, s := range a.Kit.Sidecars {
		g.Programs = append(g.Programs, sidecar.Program{Name: s.Program, Config: s.Config})
	}
	k.sidecars.Want(g, a.On)
}

// Relieved implements instance.Kits.
func (k *kits) Relieved(ctx context.Context, id instance.ID) error {
	return k.sidecars.Relieved(ctx, string(id))
}

// Dismiss implements instance.Kits.
func (k *kits) Dismiss(ctx context.Context, id instance.ID, handle string) error {
	if err := k.sidecars.End(ctx, string(id)); err != nil {
		return err
	}
	return k.config.Remove(handle)
}

// ReadConfig implements httpapi.Kits.
func (k *kits) ReadConfig(handle, file string) ([]byte, error) { return k.config.Read(handle, file) }

// WriteConfig implements httpapi.Kits.
func (k *kits) WriteConfig(handle, file string, b []byte) error {
	defer k.sidecars.Look() // also where folders cannot be watched
	return k.config.Write(handle, file, b)
}

// Running implements httpapi.Kits.
func (k *kits) Running(id string) bool { return k.sidecars.Running(id) }

// toldSecrets is a vault that tells when what is in it has changed.
type toldSecrets struct {
	*vault.Vault

	changed func()
}

// Set implements httpapi.Secrets.
func (t toldSecrets) Set(ctx context.Context, name string, value secret.Value) (secret.Meta, error) {
	defer t.changed()
	return t.Vault.Set(ctx, name, value)
}

// Delete implements httpapi.Secrets.
func (t toldSecrets) Delete(ctx context.Context, name string) error {
	defer t.changed()
	return t.Vault.Delete(ctx, name)
}
