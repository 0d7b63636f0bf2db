package instance

import (
	"context"
	"slices"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Kits knows kits, and the programs that run beside instances of one. The daemon
// implements it with packages kit, sidecar and workspace. Its methods may be called
// together.
type Kits interface {
	// Apply fills in what the kit named by spec says where spec says nothing, and what is
	// kept of the kit. A kit that is not there, or lacks something, is an error that tells.
	Apply(spec *Spec) error

	// Furnish writes the files that configure a new instance of a kit, where they are not
	// there yet. The instance's folders are there. Copies of an instance are not furnished:
	// their workspace has what that one's had, and what their sidecars are to do is for a user
	// to say. Two of them that have the same account would take its messages from each other.
	Furnish(id ID, spec Spec) error

	// Attend says whether sidecars are to run beside an instance from now on, and with
	// what. It returns at once, and may say again what was said before.
	Attend(a Attendance)

	// Relieved returns when the sidecars have ended that Attend said are not to run any more.
	Relieved(ctx context.Context, id ID) error

	// Dismiss ends the sidecars of an instance that is being deleted, removes their files,
	// and returns when nothing of both is left. It is idempotent.
	Dismiss(ctx context.Context, id ID, handle string) error
}

// Kit is what an instance keeps of the kit that it was made of: a later version of the
// kit changes nothing for it.
type Kit struct {
	Name     string
	Version  string    `json:",omitempty"`
	Programs []string  `json:",omitempty"` // of the host, brought into its VM
	Sidecars []Sidecar `json:",omitempty"`
}

// Sidecar is a program of the host that runs beside an instance while that is enabled.
type Sidecar struct {
	Program string // its file's name
	Config  string `json:",omitempty"` // the name of its file in the instance's folder of the kits
}

// Attendance is what runs beside one instance.
type Attendance struct {
	ID      ID
	Handle  string
	Kit     Kit
	Secrets []string // names of those in the environment
	On      bool
}

// applyKit fills in what the kit of a new instance says.
func (w *World) applyKit(spec *Spec) error {
	switch {
	case spec.Kit.Name == "":
		spec.Kit = Kit{}
		return nil
	case w.Kits == nil:
		return fault.New(fault.NotFound, "there is no kit %q", spec.Kit.Name).WithHint("see: aegis kit list")
	}
	return w.Kits.Apply(spec)
}

// furnishKit makes what a new instance of a kit is configured by.
func (w *World) furnishKit(id ID, spec Spec) error {
	if w.Kits == nil || spec.Kit.Name == "" {
		return nil
	}
	if err := w.ensureFolders(id, spec.Folders); err != nil {
		return err
	}
	return w.Kits.Furnish(id, spec)
}

// dismiss ends what runs beside an instance, for good.
func (w *World) dismiss(ctx context.Context, id ID, spec Spec) error {
	if w.Kits == nil || spec.Kit.Name == "" {
		return nil
	}
	return w.Kits.Dismiss(ctx, id, spec.Handle)
}

// relieved waits for the end of sidecars that are not to run any more.
func (w *World) relieved(ctx context.Context, id ID, spec Spec) error {
	if w.Kits == nil || len(spec.Kit.Sidecars) == 0 {
		return nil
	}
	return w.Kits.Relieved(ctx, id)
}

// attend tells what is to run beside the instance, if that has changed.
func (a *actor) attend() {
	if a.world.Kits == nil || len(a.spec.Kit.Sidecars) == 0 {
		return
	}
	now := Attendance{
		ID: a.id, Handle: a.spec.Handle, Kit: a.spec.Kit, Secrets: a.record.Spec.Secrets,
		On: a.snap.Enabled && !a.pending && a.snap.State != Erasing && a.snap.State != Deleted,
	}
	if now.On != a.told.On || now.On && !slices.Equal(now.Secrets, a.told.Secrets) {
		a.told = now
		a.world.Kits.Attend(now)
	}
}

// Remark writes a line of AegisVM's own to the log of an instance, if that is there and
// has one.
func (s *Set) Remark(id ID, text string) {
	if a, err := s.find(string(id)); err == nil {
		a.remark("%s", text)
	}
}
