package instance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// maxAsleep is how many children of an instance may be stopped: they are not live, but
// their disks are there.
const maxAsleep = 32

// families is who started whom over the Guest API. It decides, together with the making of
// a child, whether there may be one more: two that are made at once do not both take the
// last place. Its methods may be called together.
type families struct {
	mu sync.Mutex
	of map[ID]*family // by parent
}

type family struct {
	closed   bool        // it may have no more: the parent is about to be ended
	children map[ID]bool // whether they are live: they have a machine, or its memory
}

// get returns the family of a parent. The caller holds mu.
func (f *families) get(parent ID) *family {
	if f.of == nil {
		f.of = map[ID]*family{}
	}
	fam := f.of[parent]
	if fam == nil {
		fam = &family{children: map[ID]bool{}}
		f.of[parent] = fam
	}
	return fam
}

func (f *family) live() int {
	n := 0
	for _, live := range f.children {
		if live {
			n++
		}
	}
	return n
}

// room says why a parent that may have so many live children cannot have one more.
func (f *family) room(most int) error {
	if f.closed {
		return fault.New(fault.Conflict, "its parent is being ended, or is disabled")
	}
	if n := f.live(); n >= most {
		return fault.New(fault.Denied, "there are %d live children already, and may be %d", n, most).
			WithHint("stop one; the capability max_children decides")
	}
	return nil
}

// join adds a live child.
func (f *families) join(parent, child ID, most int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fam := f.get(parent)
	if err := fam.room(most); err != nil {
		return err
	}
	if asleep := len(fam.children) - fam.live(); asleep >= maxAsleep {
		return fault.New(fault.Denied, "there are %d stopped children already", asleep).WithHint("delete some")
	}
	fam.children[child] = true
	return nil
}

// rejoin adds a child that an earlier daemon had.
func (f *families) rejoin(parent, child ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.get(parent).children[child] = false
}

// revive makes a stopped child live.
func (f *families) revive(parent, child ID, most int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fam := f.get(parent)
	if fam.children[child] {
		return nil
	}
	if err := fam.room(most); err != nil {
		return err
	}
	fam.children[child] = true
	return nil
}

// note says whether a child is live. One that has left is not heard of again.
func (f *families) note(parent, child ID, live bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fam := f.of[parent]; fam != nil {
		if _, member := fam.children[child]; member {
			fam.children[child] = live
		}
	}
}

// leave removes an instance, as a child and as a parent.
func (f *families) leave(parent, id ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of, id)
	if fam := f.of[parent]; fam != nil {
		delete(fam.children, id)
	}
}

// close ends the making of children, and returns those that there are.
func (f *families) close(parent ID) []ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	fam := f.get(parent)
	fam.closed = true
	ids := make([]ID, 0, len(fam.children))
	for id := range fam.children {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (f *families) open(parent ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fam := f.of[parent]; fam != nil {
		fam.closed = false
	}
}

func (f *families) liveOf(parent ID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fam := f.of[parent]; fam != nil {
		return fam.live()
	}
	return 0
}

// admitChild takes an instance that is about to be added into its family. The caller
// holds the Set's mu.
func (s *Set) admitChild(r Record, state State) error {
	parent := r.Spec.Parent
	switch p := s.actors[parent]; {
	case parent == "":
		return nil
	case state == Stopped: // it was there before
		s.families.rejoin(parent, r.ID)
		return nil
	case p == nil:
		return fault.New(fault.NotFound, "there is no instance %q to be its parent", parent)
	default:
		return s.families.join(parent, r.ID, p.spec.Rights().MaxChildren)
	}
}

// reviveChild says why a stopped instance cannot be started again beside its siblings.
func (a *actor) reviveChild() error {
	parent := a.spec.Parent
	if parent == "" || a.snap.State != Stopped || a.snap.Hibernated {
		return nil
	}
	p, err := a.set.find(string(parent))
	if err != nil {
		return ErrDeleted // it is about to follow its parent
	}
	return a.set.families.revive(parent, a.id, p.spec.Rights().MaxChildren)
}

// Children returns the children of an instance, oldest first.
func (s *Set) Children(parent ID) []View {
	var out []View
	for _, v := range s.List() {
		if v.Spec.Parent == parent {
			out = append(out, v)
		}
	}
	return out
}

// endChildren ends the children of an instance, however deep, and keeps it from making
// others. how is Delete or Disable. It returns when they have ended.
func (s *Set) endChildren(ctx context.Context, parent ID, how EventKind) error {
	ids := s.families.close(parent)
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			a, err := s.find(string(id))
			if err != nil {
				return // it has gone by itself
			}
			a.log.InfoContext(ctx, "follow the parent", logattr.Why(how.String()))
			if how == Disable {
				err = s.disable(ctx, a)
			} else {
				err = a.delete(ctx) // and its own with it
			}
			if err != nil && !errors.Is(err, ErrDeleted) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// disable disables an instance after its children: as long as it is enabled, a daemon that
// dies in between leaves nothing that is half done.
func (s *Set) disable(ctx context.Context, a *actor) error {
	err := s.endChildren(ctx, a.id, Disable)
	if err == nil {
		err = a.ask(ctx, Disable)
	}
	if err != nil {
		s.families.open(a.id)
		return err
	}
	return s.world.relieved(ctx, a.id, a.spec)
}

// endOrphans deletes instances whose parents are not there any more: a daemon died while
// it deleted them, or the parent was of a run.
func (s *Set) endOrphans(ctx context.Context) error {
	var errs []error
	for _, a := range s.all() {
		if a.spec.Parent == "" {
			continue
		}
		if _, err := s.find(string(a.spec.Parent)); err != nil {
			a.log.InfoContext(ctx, "delete", logattr.Why("its parent "+string(a.spec.Parent)+" is gone"))
			errs = append(errs, a.delete(ctx))
		}
	}
	return errors.Join(errs...)
}

// isChildOf reports whether an instance was started by parent.
func (v View) isChildOf(parent ID) bool { return parent != "" && v.Spec.Parent == parent }

// Child returns the child of an instance that has that id or handle. Whatever is not its
// child is not there for it.
func (s *Set) Child(parent ID, ref string) (View, error) {
	v, err := s.Get(ref)
	if err != nil || !v.isChildOf(parent) {
		return View{}, fault.New(fault.NotFound, "there is no child %q of this instance", strings.ToValidUTF8(ref, "?")).
			WithHint("see: GET /v1/instances")
	}
	return v, nil
}

// refuseChild declines a request that would start a child for which there is no place.
func (a *actor) refuseChild(r request) bool {
	err := a.reviveChild()
	if err != nil {
		a.decline(r, err)
	}
	return err != nil
}
