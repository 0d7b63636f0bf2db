package image

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Remove takes a name away, or with the id of an image all of its names. The image goes
// when nothing needs it any more. One on which instances stand is not parted from its
// last name, unless by force; then it goes with the last of them.
func (s *Store) Remove(_ context.Context, ref string, force bool) (api.ImagesRemoved, error) {
	none := api.ImagesRemoved{}
	r, name, err := s.find(ref)
	if err != nil {
		return none, err
	}
	if name == DefaultName {
		return none, fault.New(fault.Conflict, "%s is the image that set-up made", DefaultName).
			WithHint("it is needed by instances that ask for no image")
	}
	tags, err := s.tags()
	if err != nil {
		return none, err
	}
	tags = slices.DeleteFunc(tags, func(t tag) bool { return t.ID != r.ID })
	going := tags
	if name != "" {
		going = slices.DeleteFunc(slices.Clone(tags), func(t tag) bool { return t.Name != name })
	}
	using, err := s.users()
	if err != nil {
		return none, err
	}
	if users := using[r.ID]; len(going) == len(tags) && len(users) > 0 && !force {
		return none, fault.New(fault.Conflict, "%s is used by %s", ref, strings.Join(users, ", ")).
			WithHint("delete the instance first; or take only the name away: aegis image rm --force %s", ref)
	}
	var untagged []string
	for _, t := range going {
		if err := os.Remove(s.tagFile(t.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return none, err
		}
		untagged = append(untagged, familiar(t.Name))
	}
	return s.collect(false, untagged)
}

// Prune removes what nobody needs: images without a name and an instance, and all layers,
// which can be fetched again. With all, named images without an instance go too.
func (s *Store) Prune(_ context.Context, all bool) (api.ImagesRemoved, error) {
	var untagged []string
	if all {
		tags, err := s.tags()
		if err != nil {
			return api.ImagesRemoved{}, err
		}
		for _, t := range tags {
			if s.isDefault([]string{familiar(t.Name)}) {
				continue
			}
			gone, err := s.untag(t)
			if err != nil {
				return api.ImagesRemoved{}, err
			}
			if gone {
				untagged = append(untagged, familiar(t.Name))
			}
		}
	}
	return s.collect(true, untagged)
}

// untag takes a name away unless somebody is at work with its image, or stands on it.
func (s *Store) untag(t tag) (bool, error) {
	done, ok := s.pins.claim(t.ID)
	if !ok {
		return false, nil
	}
	defer done()
	users, err := s.users()
	if err != nil || len(users[t.ID]) > 0 {
		return false, err
	}
	err = os.Remove(s.tagFile(t.Name))
	return err == nil, err
}

// Collect removes images that have neither a name nor a user, and layers over the
// quota.
func (s *Store) Collect(ctx context.Context) { s.tidy(ctx) }

// tidy is Collect where nobody waits for the outcome.
func (s *Store) tidy(ctx context.Context) {
	removed, err := s.collect(false, nil)
	if err != nil {
		s.log.ErrorContext(ctx, "collect images", logattr.Err(err))
	}
	for _, id := range removed.Deleted {
		s.log.InfoContext(ctx, "image removed", logattr.Image(id))
	}
}

// collect removes images that nobody needs, then roots without an image, then layers:
// all of them, or as many as are over the quota.
func (s *Store) collect(allLayers bool, untagged []string) (api.ImagesRemoved, error) {
	out := api.ImagesRemoved{Untagged: append([]string{}, untagged...), Deleted: []string{}}
	before, err := s.use()
	if err != nil {
		return out, err
	}
	if out.Deleted, err = s.collectRecords(); err != nil {
		return out, err
	}
	if err := s.collectRoots(); err != nil {
		return out, err
	}
	if err := s.collectLayers(allLayers); err != nil {
		return out, err
	}
	after, err := s.use()
	out.Freed = max(0, int64(before-after))
	return out, err
}

func (s *Store) collectRecords() ([]string, error) {
	deleted := []string{}
	records, err := s.records()
	if err != nil {
		return deleted, err
	}
	var mine []record
	for _, r := range records {
		if done, ok := s.pins.claim(r.ID); ok {
			defer done()
			mine = append(mine, r)
		}
	}
	// Asked only now: whoever needs one of mine from here on waits.
	needed, err := s.needed()
	if err != nil {
		return deleted, err
	}
	for _, r := range mine {
		if needed[r.ID] {
			continue
		}
		switch err := os.Remove(s.recordFile(r.ID)); {
		case errors.Is(err, fs.ErrNotExist):
			continue // another collection was here
		case err != nil:
			return deleted, err
		}
		deleted = append(deleted, r.ID)
	}
	return deleted, nil
}

// needed returns the ids of images that have a name, an instance or a snapshot.
func (s *Store) needed() (map[string]bool, error) {
	needed := map[string]bool{}
	users, err := s.users()
	if err != nil {
		return nil, err
	}
	for id := range users {
		needed[id] = true
	}
	tags, err := s.tags()
	if err != nil {
		return nil, err
	}
	for _, t := range tags {
		needed[t.ID] = true
	}
	if r, err := s.baseID(); err == nil {
		needed[r] = true
	}
	return needed, nil
}

func (s *Store) collectRoots() error {
	entries, err := os.ReadDir(rootfs.Roots(s.home))
	if err != nil {
		return err
	}
	for _, e := range entries {
		digest := "sha256:" + strings.TrimSuffix(e.Name(), ".erofs")
		if !rootfs.IsDigest(digest) {
			continue // unfinished
		}
		if err := s.collectRoot(digest); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) collectRoot(digest string) error {
	done, ok := s.pins.claim(digest)
	if !ok {
		return nil
	}
	defer done()
	records, err := s.records()
	if err != nil || slices.ContainsFunc(records, func(r record) bool { return r.Root == digest }) {
		return err
	}
	path, err := rootfs.RootPath(s.home, digest)
	if err != nil {
		return err
	}
	s.forget(digest)
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // another collection was here
}

// collectLayers removes the layers that were not used for longest until images take no
// more than nine tenths of the quota, or all.
func (s *Store) collectLayers(all bool) error {
	used, err := s.use()
	if err != nil {
		return err
	}
	type old struct {
		name string
		used time.Time
		size size.Bytes
	}
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return err
	}
	var list []old
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		list = append(list, old{e.Name(), fi.ModTime(), rootfs.Occupied(fi)})
	}
	slices.SortFunc(list, func(a, b old) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.name, b.name)) })
	for _, l := range list {
		if !all && used <= s.quota/10*9 {
			break
		}
		done, ok := s.pins.claim("sha256:" + strings.TrimSuffix(l.name, ".part"))
		if !ok {
			continue
		}
		err := os.Remove(filepath.Join(s.path("layers"), l.name))
		done()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		used -= l.size
	}
	return nil
}
