package workspace

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/paths"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = "inst-0123456789a"

func newStore(t *testing.T) (*Store, paths.Home) {
	t.Helper()
	home := paths.Home(filepath.Join(t.TempDir(), "home"))
	if err := home.Create(); err != nil {
		t.Fatal(err)
	}
	return New(home, slog.New(slog.DiscardHandler)), home
}

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Errorf("%s: %v (%s), want %s", what, err, fault.KindOf(err), kind)
	}
}

func TestCheck(t *testing.T) {
	for _, good := range []Spec{
		{},
		{Workspace: "a"},
		{Workspace: "My.work_space-2"},
		{Workspace: "/srv/data"},
		{Workspace: "/"},
		{Mounts: []Mount{{Source: "a", Target: "/data"}, {Source: "/b", Target: "/data/sub/", ReadOnly: true}}},
		{Mounts: []Mount{{Source: "a", Target: "/procedures"}, {Source: "a", Target: "/workspace/sub"}}},
	} {
		if err := good.Check(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for what, bad := range map[string]Spec{
		"hidden": {Workspace: ".x"}, "parent": {Workspace: ".."}, "dash": {Workspace: "-x"}, "blank": {Workspace: "a b"},
		"relative": {Workspace: "a/b"}, "up": {Workspace: "../x"}, "NUL": {Workspace: "/a\x00b"}, "newline": {Workspace: "a\n"},
		"long": {Workspace: strings.Repeat("x", 129)}, "umlaut": {Workspace: "ü"},
		"no source":       {Mounts: []Mount{{Target: "/x"}}},
		"relative source": {Mounts: []Mount{{Source: "./a", Target: "/x"}}},
		"relative target": {Mounts: []Mount{{Source: "a", Target: "x"}}},
		"root":            {Mounts: []Mount{{Source: "a", Target: "/"}}},
		"root again":      {Mounts: []Mount{{Source: "a", Target: "/x/.."}}},
		"proc":            {Mounts: []Mount{{Source: "a", Target: "/x/../proc/sys"}}},
		"dev":             {Mounts: []Mount{{Source: "a", Target: "/dev"}}},
		"twice":           {Mounts: []Mount{{Source: "a", Target: "/x"}, {Source: "b", Target: "/x/"}}},
		"the workspace":   {Mounts: []Mount{{Source: "a", Target: "/workspace/"}}},
		"too many":        {Mounts: make([]Mount, MaxMounts+1)},
	} {
		wantKind(t, what, bad.Check(), fault.Invalid)
	}
}

func TestDirs(t *testing.T) {
	s, home := newStore(t)
	ws := filepath.Join(t.TempDir(), "ws")
	if err := os.Mkdir(ws, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ws, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{"": filepath.Join(home.Instance(id), "workspace"), "named": home.Workspace("named"), ws: ws, ws + "/": ws} {
		for range 2 { // what is there stays
			dir, err := s.workspace(id, Spec{Workspace: source})
			if err != nil || dir != want {
				t.Errorf("%q: %s, %v; want %s", source, dir, err, want)
				continue
			}
			if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o755 {
				t.Errorf("%s: %v, %v", dir, fi, err)
			}
			_ = os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600)
		}
		if _, err := os.Stat(filepath.Join(want, "kept")); err != nil {
			t.Error(err)
		}
	}
	if fi, err := os.Stat(home.Workspaces()); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(home.Data(), link); err != nil {
		t.Fatal(err)
	}
	for source, kind := range map[string]fault.Kind{
		ws + "-other": fault.NotFound, ws + "/no/way": fault.NotFound, ws + "/file/x": fault.NotFound, ws + "/file": fault.Invalid,
		string(home): fault.Denied, home.Data(): fault.Denied, home.Instances(): fault.Denied, home.Workspaces(): fault.Denied,
		link: fault.Denied, home.Instance(id) + "/workspace": fault.Denied,
	} {
		_, err := s.workspace(id, Spec{Workspace: source})
		wantKind(t, source, err, kind)
	}
	for _, source := range []string{home.Workspace("named"), filepath.Dir(string(home))} {
		if _, err := s.workspace(id, Spec{Workspace: source}); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
	for _, bad := range []string{"", "..", "../x", "inst-1/../../x", "inst-", "x"} {
		_, err := s.workspace(bad, Spec{})
		wantKind(t, bad, err, fault.Internal)
		wantKind(t, bad, s.Clear(bad), fault.Internal)
	}
	if err := os.WriteFile(home.Workspace("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.workspace(id, Spec{Workspace: "file"}); err == nil {
		t.Error("a file is a workspace")
	}
}

func TestClear(t *testing.T) {
	s, home := newStore(t)
	for _, source := range []string{"", "named"} {
		dir, err := s.workspace(id, Spec{Workspace: source})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(home.Workspace("named"), filepath.Join(home.Instance(id), "workspace", "link")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Clear(id); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(home.Instance(id), "workspace")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the automatic one: %v", err)
	}
	if _, err := os.Stat(filepath.Join(home.Workspace("named"), "file")); err != nil {
		t.Errorf("the named one: %v", err)
	}
}

// pipes is a listener whose peers are in the guest's kernel.
type pipes struct {
	net.Listener

	conns chan net.Conn
}

type kernelConn struct{ net.Conn }

func (kernelConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 168, 127, 2), Port: 700}
}

func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return kernelConn{c}, nil
}

func (p *pipes) Close() error {
	defer func() { _ = recover() }() // closed twice
	close(p.conns)
	return nil
}

// mountable asks the server for an export, and reports whether there is one.
func mountable(t *testing.T, c net.Conn, export string) bool {
	t.Helper()
	msg := []byte{0, 0, 0, 1}
	for _, v := range []uint32{0, 2, 100005, 3, 1, 0, 0, 0, 0, uint32(len(export))} {
		msg = binary.BigEndian.AppendUint32(msg, v)
	}
	msg = append(msg, export...)
	msg = append(msg, make([]byte, -len(export)&3)...)
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(msg))), msg...)); err != nil {
		t.Fatal(err)
	}
	var mark [4]byte
	if _, err := io.ReadFull(c, mark[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint32(b[24:]) == 0
}

func TestServe(t *testing.T) {
	s, home := newStore(t)
	w, err := s.Open(id, Spec{ReadOnly: true, Mounts: []Mount{{Source: "data", Target: "/data/", ReadOnly: true}, {Source: t.TempDir(), Target: "/more"}}}, Begins)
	if err != nil {
		t.Fatal(err)
	}
	want := guestproto.Mount{Mounts: []guestproto.MountPoint{
		{Export: "/", Target: "/workspace", ReadOnly: true}, {Export: "/mounts/0", Target: "/data", ReadOnly: true}, {Export: "/mounts/1", Target: "/more"},
	}}
	if got := w.Mount(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for range 2 { // a network may be exchanged under it
		ln := &pipes{conns: make(chan net.Conn)}
		done := make(chan error)
		go func() { done <- w.Serve(ln) }()
		ours, theirs := net.Pipe()
		ln.conns <- theirs
		for export, there := range map[string]bool{"/": true, "/mounts/0": true, "/mounts/1": true, "/mounts/2": false, "/mounts": false} {
			if got := mountable(t, ours, export); got != there {
				t.Errorf("%s: %v", export, got)
			}
		}
		_ = ours.Close()
		_ = ln.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	noted := filepath.Join(home.Instance(id), journal)
	if err := os.WriteFile(noted, []byte("noted"), 0o600); err != nil {
		t.Fatal(err)
	}
	for life, size := range map[Life]int64{GoesOn: 5, Begins: 0} {
		if err := os.WriteFile(noted, []byte("noted"), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := s.Open(id, Spec{}, life)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(noted); err != nil || fi.Size() != size {
			t.Errorf("life %d: %v, %v", life, fi, err)
		}
		if w.Mount().Reconnect != (life == GoesOn) {
			t.Errorf("life %d: reconnect %v", life, w.Mount().Reconnect)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	for what, spec := range map[string]Spec{"workspace": {Workspace: "/no/such"}, "mount": {Mounts: []Mount{{Source: "/no/such", Target: "/x"}}}} {
		_, err := s.Open(id, spec, Begins)
		wantKind(t, what, err, fault.NotFound)
		if fault.HintOf(err) == "" {
			t.Errorf("%s: no hint", what)
		}
	}
}
