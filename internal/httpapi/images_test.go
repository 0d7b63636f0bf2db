package httpapi

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// stubImages answers with what it was asked.
type stubImages struct {
	tells int   // lines of progress
	err   error // after them
	asked []string
}

func (s *stubImages) note(words ...string) { s.asked = append(s.asked, strings.Join(words, " ")) }

func (s *stubImages) List(context.Context) ([]api.Image, error) {
	return []api.Image{{ID: "one"}, {ID: "two"}}, s.err
}

func (s *stubImages) Inspect(_ context.Context, ref string) (api.Image, error) {
	return api.Image{ID: ref}, s.err
}

func (s *stubImages) arrive(tell func(api.ImageProgress), id string) ([]api.Image, error) {
	for i := range s.tells {
		tell(api.ImageProgress{Status: "downloading", Current: int64(i)})
	}
	return []api.Image{{ID: id}, {ID: "more"}}, s.err
}

func (s *stubImages) Pull(_ context.Context, ref string, policy instance.Pull, tell func(api.ImageProgress)) (api.Image, error) {
	s.note("pull", ref, string(policy))
	images, err := s.arrive(tell, ref)
	return images[0], err
}

func (s *stubImages) Import(_ context.Context, path, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	s.note("import", path, name)
	return s.arrive(tell, path)
}

func (s *stubImages) ImportStream(_ context.Context, r io.Reader, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	if s.err == nil {
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		s.note("stream", string(data), name)
	}
	return s.arrive(tell, name)
}

func (s *stubImages) Remove(_ context.Context, ref string, force bool) (api.ImagesRemoved, error) {
	if force {
		ref += " by force"
	}
	return api.ImagesRemoved{Untagged: []string{ref}, Deleted: []string{}}, s.err
}

func (s *stubImages) Prune(_ context.Context, all bool) (api.ImagesRemoved, error) {
	freed := int64(1)
	if all {
		freed = 2
	}
	return api.ImagesRemoved{Freed: freed}, s.err
}

// committer makes images of instances.
type committer struct{ Instances }

func (committer) Commit(_ context.Context, ref, name string) (instance.Base, error) {
	if ref != "web" {
		return instance.Base{}, fault.New(fault.NotFound, "there is no instance %q", ref)
	}
	return instance.Base{ID: "image " + name}, nil
}

func TestImages(t *testing.T) {
	s := &stubImages{tells: 3}
	c, _, _ := serveConfig(t, &stubRunner{}, Config{Images: s, Instances: committer{}, Limits: Limits{Body: 1000}}, os.Getuid())
	var told []int64
	tell := func(p api.ImageProgress) { told = append(told, p.Current) }
	if i, err := c.PullImage(t.Context(), "app:1", "always", tell); err != nil || i.ID != "app:1" || !slices.Equal(told, []int64{0, 1, 2}) {
		t.Errorf("pull: %+v, %v, told %v", i, err, told)
	}
	if all, err := c.ImportImage(t.Context(), "/a/file", "mine", tell); err != nil || len(all) != 2 || all[0].ID != "/a/file" {
		t.Errorf("import: %+v, %v", all, err)
	}
	large := strings.Repeat("x", 5000)
	if all, err := c.SendImage(t.Context(), strings.NewReader(large), "mine", tell); err != nil || all[0].ID != "mine" {
		t.Errorf("send: %+v, %v", all, err)
	}
	if want := []string{"pull app:1 always", "import /a/file mine", "stream " + large + " mine"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %.80q", s.asked)
	}
	if all, err := c.Images(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("list: %+v, %v", all, err)
	}
	if i, err := c.Image(t.Context(), "a/b:c@d"); err != nil || i.ID != "a/b:c@d" {
		t.Errorf("inspect: %+v, %v", i, err)
	}
	if out, err := c.RemoveImage(t.Context(), "a/b:c", true); err != nil || out.Untagged[0] != "a/b:c by force" {
		t.Errorf("remove: %+v, %v", out, err)
	}
	if out, err := c.PruneImages(t.Context(), true); err != nil || out.Freed != 2 {
		t.Errorf("prune: %+v, %v", out, err)
	}
	if i, err := c.CommitImage(t.Context(), "web", "mine:2"); err != nil || i.ID != "image mine:2" {
		t.Errorf("commit: %+v, %v", i, err)
	}
	if _, err := c.CommitImage(t.Context(), "nobody", "x"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("commit of nobody: %v", err)
	}
}

// TestImageErrors come as answers before there is progress, and as the last line after.
func TestImageErrors(t *testing.T) {
	for _, tells := range []int{0, 2} {
		s := &stubImages{tells: tells, err: fault.New(fault.Denied, "not for you").WithHint("docker login")}
		c, _, _ := serveConfig(t, &stubRunner{}, Config{Images: s}, os.Getuid())
		quiet := func(api.ImageProgress) {}
		_, pull := c.PullImage(t.Context(), "x", "", quiet)
		_, take := c.ImportImage(t.Context(), "/x", "", quiet)
		// Nobody reads the body: the answer must come all the same.
		_, send := c.SendImage(t.Context(), io.LimitReader(zeros{}, 64<<20), "", quiet)
		_, list := c.Images(t.Context())
		_, remove := c.RemoveImage(t.Context(), "x", false)
		for name, err := range map[string]error{"pull": pull, "import": take, "send": send, "list": list, "remove": remove} {
			if fault.KindOf(err) != fault.Denied || fault.HintOf(err) != "docker login" {
				t.Errorf("%s after %d lines: %v (%s)", name, tells, err, fault.KindOf(err))
			}
		}
	}
}

// TestBrokenUpload gives an import up whose archive cannot be read.
func TestBrokenUpload(t *testing.T) {
	s := &stubImages{}
	c, _, _ := serveConfig(t, &stubRunner{}, Config{Images: s}, os.Getuid())
	broken := errors.New("the disk is broken")
	_, err := c.SendImage(t.Context(), io.MultiReader(strings.NewReader("begin"), failing{broken}), "", func(api.ImageProgress) {})
	if !errors.Is(err, broken) || len(s.asked) != 0 {
		t.Errorf("%v; taken: %q", err, s.asked)
	}
}
