package machine

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
)

// TestNewDisksAreTheTemplates: an instance without a disk is a clone of a machine that has
// one, and gets a copy of it in its own size. One with a disk keeps it, and is a clone of a
// machine that has seen none.
func TestNewDisksAreTheTemplates(t *testing.T) {
	s := newStage(t)
	const at = 5<<30 + 123
	s.linker.block = func(context.Context) { // the guest has the disk
		disk := filepath.Join(s.only(t), InstanceDisk)
		f, err := os.OpenFile(disk, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("mounted"), at)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}
	id := instance.NewID()
	plan := s.plan(t, id, false)
	plan.Release()
	hello, _ := s.linker.hello.Load().(guestproto.Hello)
	if !hello.Prepare || hello.DiskBytes != int64(rootfs.TemplateSize) {
		t.Errorf("the template was greeted with %+v", hello)
	}
	disk := plan.Recipe.Disks[1].Path
	check := func(want string) {
		t.Helper()
		f, err := os.Open(disk)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // only read
		b := make([]byte, len(want))
		if _, err := f.ReadAt(b, at); err != nil || string(b) != want {
			t.Errorf("the disk has %q, %v", b, err)
		}
		if fi, err := f.Stat(); err != nil || fi.Size() != int64(spec().Disk) {
			t.Errorf("it has %d bytes, %v", fi.Size(), err)
		}
	}
	check("mounted")
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("written"), at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.linker.block = nil
	again := s.plan(t, id, false)
	again.Release()
	if hello, _ := s.linker.hello.Load().(guestproto.Hello); again.Magic == plan.Magic || hello.DiskBytes != 0 {
		t.Errorf("an instance with a disk is a clone of a template that was greeted with %+v", hello)
	}
	s.made(t, 2)
	check("written")
}

// house is the networks and workspaces of a daemon, and what has happened to them.
type house struct {
	host *fake.Host
	fail string // what fails

	mu     sync.Mutex
	events []string
}

func (h *house) note(event string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(h.host.VMs(), (*fake.VM).Paused) {
		event += " of a machine that stands"
	}
	h.events = append(h.events, event)
	if event == h.fail {
		return errInjected
	}
	return nil
}

type networksOf struct {
	instance.Networks
	*house
}

func (h networksOf) Open(_ instance.ID, s instance.Spec, _ func(instance.Denial)) (instance.Network, error) {
	return &homeNetwork{house: h.house}, h.note("network " + s.Egress.Mode)
}

type homeNetwork struct {
	instance.Network
	*house
}

func (n *homeNetwork) Attach(conn net.Conn) { _ = conn.Close() }

func (n *homeNetwork) Listen(port uint16) (net.Listener, error) {
	if port != guestproto.MountPort {
		return nil, errors.New("another port")
	}
	return nil, n.note("listen")
}

func (n *homeNetwork) Close() error { return n.note("network closed") }

type workspacesOf struct {
	instance.Workspaces
	*house
}

func (h workspacesOf) Open(instance.ID, instance.Folders, instance.Life) (instance.Workspace, error) {
	return &homeWorkspace{house: h.house, closed: make(chan struct{})}, h.note("workspace")
}

func (h workspacesOf) Clear(instance.ID) error { return h.note("workspace cleared") }

type homeWorkspace struct {
	*house
	closed chan struct{}
}

func (w *homeWorkspace) Mount() guestproto.Mount {
	return guestproto.Mount{Mounts: []guestproto.MountPoint{{Export: "/", Target: "/workspace"}}}
}

func (w *homeWorkspace) Serve(net.Listener) error { <-w.closed; return nil }

func (w *homeWorkspace) Close() error {
	close(w.closed)
	return w.note("workspace closed")
}

// TestTemplatesHaveAWorkspace: it is served until the machine stands, and nothing of it is
// left, whatever fails.
func TestTemplatesHaveAWorkspace(t *testing.T) {
	all := []string{
		"network none", "workspace", "listen", "mount", "workspace closed of a machine that stands",
		"network closed of a machine that stands", "workspace cleared of a machine that stands",
	}
	furnished := func(t *testing.T, fail string) *stage {
		t.Helper()
		s := newStage(t)
		h := &house{host: s.host, fail: fail}
		s.networks, s.workspaces = networksOf{house: h}, workspacesOf{house: h}
		s.linker.house = h
		return s
	}
	s := furnished(t, "")
	s.start(t, s.fresh(t))
	if got := s.linker.house.events; !slices.Equal(got, all) {
		t.Errorf("there was %q", got)
	}
	for _, fail := range all[:4] {
		s := furnished(t, fail)
		s.fails(t, errInjected)
		events := s.linker.house.events
		if slices.Contains(events, "workspace") && fail != "workspace" && !slices.Contains(events, "workspace cleared") {
			t.Errorf("%s fails: there was %q", fail, events)
		}
		if ids, err := s.Leftovers(); err != nil || len(ids) != 0 || len(s.folders(t)) != 0 {
			t.Errorf("%s fails: left %v, %v, %v", fail, ids, s.folders(t), err)
		}
	}
}
