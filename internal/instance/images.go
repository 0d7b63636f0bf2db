package instance

import (
	"context"
	"errors"
	"io"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Images finds the images that instances stand on. Package image implements it.
type Images interface {
	// Resolve returns the image that ref names; "" is the default image. Where pull says
	// so it is fetched first. The image stays until release is called, and as long as an
	// instance of the Set has it.
	Resolve(ctx context.Context, ref string, pull Pull) (base Base, release func(), err error)

	// Commit makes an image of another and the changes on it, a layer of a container
	// image, gives it the name ref and returns it.
	Commit(ctx context.Context, base Base, ref string, layer io.Reader) (Base, error)
}

// Base is the image that an instance stands on, as it was when the instance was made:
// a name that comes to mean another image changes nothing for it.
type Base struct {
	ID      string   // "sha256:" and the digest of the image's description
	Root    string   // "sha256:" and what its root file system is known by
	Env     []string `json:",omitempty"` // KEY=VALUE
	Workdir string   `json:",omitempty"`
	User    string   `json:",omitempty"`
}

// Pull says when an image is fetched from its registry.
type Pull string

// The policies.
const (
	PullMissing Pull = "missing" // when it is not here; so is ""
	PullAlways  Pull = "always"  // when its registry has another one under the name
	PullNever   Pull = "never"
)

// Check says whether it is one of the policies.
func (p Pull) Check() error {
	switch p {
	case "", PullMissing, PullAlways, PullNever:
		return nil
	}
	return fault.New(fault.Invalid, "images are pulled always, missing or never, not %q", string(p))
}

// MaxImageEnv bounds the environment of an image: it travels with that of the command.
const MaxImageEnv = 128 * size.KiB

// settle finds the image of a new instance, and fills in what it says of programs. The
// image may go after release, unless an instance has it.
func (w *World) settle(ctx context.Context, spec *Spec) (release func(), err error) {
	if err := spec.Pull.Check(); err != nil {
		return nil, err
	}
	if w.Images == nil {
		return func() {}, nil
	}
	if spec.Base.ID != "" { // of a parent that is there, and its image with it
		spec.Workdir, spec.User = or(spec.Workdir, spec.Base.Workdir), or(spec.User, spec.Base.User)
		return func() {}, nil
	}
	base, release, err := w.Images.Resolve(ctx, spec.Image, spec.Pull)
	if err != nil {
		return nil, err
	}
	spec.Base = base
	spec.Workdir, spec.User = or(spec.Workdir, base.Workdir), or(spec.User, base.User)
	return release, nil
}

// over lays the environment of a process over that of its image. Both are KEY=VALUE;
// the second is in order, and has each name once.
func (b Base) over(env []string) []string {
	if len(b.Env) == 0 {
		return env
	}
	all := map[string]string{}
	for _, list := range [][]string{b.Env, env} {
		for _, e := range list {
			k, v := cutEnv(e)
			all[k] = v
		}
	}
	return envList(all)
}

func cutEnv(e string) (key, value string) {
	for i := range len(e) {
		if e[i] == '=' {
			return e[:i], e[i+1:]
		}
	}
	return e, ""
}

// Warmer is a Ground that can make in advance what new instances start from.
type Warmer interface {
	// Warm makes what starts of instances like spec are clones of, if it is not there.
	Warm(ctx context.Context, spec Spec) error
}

// Warm makes in advance what instances of an image start from that ask for nothing special, so
// that the first is as fast as the others.
func (s *Set) Warm(ctx context.Context, image string) error {
	warmer, ok := s.world.Ground.(Warmer)
	if !ok {
		return fault.New(fault.Conflict, "nothing can be made in advance here")
	}
	spec := Spec{Command: []string{"true"}, Image: image, Pull: PullNever}
	if err := spec.Complete(s.world.Defaults); err != nil {
		return err
	}
	release, err := s.world.settle(ctx, &spec)
	if err != nil {
		return err
	}
	defer release()
	return warmer.Warm(ctx, spec)
}

// Commit makes an image named name of an instance's image and what the instance has
// changed on it, and returns that. The instance is woken and stays awake meanwhile; its
// programs stand still.
func (s *Set) Commit(ctx context.Context, ref, name string) (Base, error) {
	a, err := s.find(ref)
	if err != nil {
		return Base{}, err
	}
	if s.world.Images == nil || a.spec.Base.ID == "" {
		return Base{}, fault.New(fault.Conflict, "%s was made by a version of AegisVM that kept no images", a.spec.Handle).
			WithHint("make a new instance and commit that")
	}
	r, w := io.Pipe()
	copied := make(chan error, 1)
	go func() { // ends with the copy, which ends when r is closed
		_, err := s.CopyOut(ctx, ref, guestproto.Copy{Path: "/", Changes: true}, w)
		_ = w.CloseWithError(err) // never fails; nil is the end
		copied <- err
	}()
	base, err := s.world.Images.Commit(ctx, a.spec.Base, name, r)
	_ = r.Close() // ends the copy, if it has not ended
	if copyErr := <-copied; copyErr != nil && !errors.Is(copyErr, io.ErrClosedPipe) {
		return Base{}, copyErr
	}
	return base, err
}
