package httpapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/workspace"
)

// working is an Instances whose one instance has a workspace.
type working struct {
	Instances
	store *workspace.Store
	spec  workspace.Spec
}

func (w working) Files(ref string) (instance.Files, error) {
	if ref != "web" {
		return nil, fault.New(fault.NotFound, "there is no instance %q", ref)
	}
	return w.store.OpenFiles("inst-0", w.spec)
}

// serveWorkspace serves an instance whose workspace is dir.
func serveWorkspace(t *testing.T, spec workspace.Spec) (*client.Client, string) {
	t.Helper()
	store := workspace.New(paths.Home(t.TempDir()), slog.New(slog.DiscardHandler))
	cl, _, socket := serveConfig(t, &stubRunner{}, Config{Instances: working{store: store, spec: spec}, Limits: Limits{Body: 1000}}, os.Getuid())
	return cl, socket
}

func TestWorkspace(t *testing.T) {
	dir := t.TempDir()
	cl, _ := serveWorkspace(t, workspace.Spec{Workspace: dir})
	large := bytes.Repeat([]byte{0, 0xff}, api.MaxWorkspaceFile/2)
	for path, data := range map[string][]byte{"a.txt": []byte("text"), "sub/dir/ü %&?.bin": large, "/empty": nil} {
		w, err := cl.WriteWorkspace(t.Context(), "web", path, data)
		if want := (api.Written{Status: "written", Path: path, Size: int64(len(data))}); err != nil || w != want {
			t.Errorf("%s: %+v, %v; want %+v", path, w, err, want)
		}
		if got, err := cl.ReadWorkspace(t.Context(), "web", path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v; want %d", path, len(got), err, len(data))
		}
	}
	tree, err := cl.WorkspaceTree(t.Context(), "web", "")
	want := []api.WorkspaceEntry{{Name: "a.txt", Size: 4}, {Name: "empty"}, {Name: "sub", IsDir: true}}
	if err != nil || !reflect.DeepEqual(tree, want) {
		t.Errorf("%+v, %v", tree, err)
	}
	if tree, err := cl.WorkspaceTree(t.Context(), "web", "sub/"); err != nil || len(tree) != 1 {
		t.Errorf("%+v, %v", tree, err)
	}
	picture := []byte("\x89PNG\r\n\x1a\n and so on")
	blob, err := cl.PutBlob(t.Context(), "web", picture)
	if err != nil || blob.MediaType != "image/png" || blob.Size != int64(len(picture)) {
		t.Errorf("%+v, %v", blob, err)
	}
	if b, err := cl.ReadWorkspace(t.Context(), "web", ".aegis/blobs/"+blob.Blob); err != nil || !bytes.Equal(b, picture) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestWorkspaceRefuses(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "ws")
	for _, err := range []error{
		os.Mkdir(dir, 0o755), os.Mkdir(dir+"-other", 0o755), os.WriteFile(dir+"-other/secret", []byte("s"), 0o600),
		os.Symlink("../ws-other", filepath.Join(dir, "link")), os.Symlink("../ws-other/secret", filepath.Join(dir, "file-link")),
		os.WriteFile(filepath.Join(dir, "large"), make([]byte, api.MaxWorkspaceFile+1), 0o600),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, socket := serveWorkspace(t, workspace.Spec{Workspace: dir})
	_, readOnly := serveWorkspace(t, workspace.Spec{Workspace: dir, ReadOnly: true})
	body := func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) }
	endless := func(n int) io.Reader { return io.LimitReader(nulls{}, int64(n)) } // its length is not told
	for _, c := range []struct {
		socket, method, path string
		body                 io.Reader
		status               int
	}{
		{socket, http.MethodGet, "/workspace?path=../ws-other/secret", nil, 403},
		{socket, http.MethodGet, "/workspace?path=file-link", nil, 403},
		{socket, http.MethodGet, "/workspace?path=link/secret", nil, 403},
		{socket, http.MethodGet, "/workspace/tree?path=link", nil, 403},
		{socket, http.MethodGet, "/workspace/tree?path=..", nil, 403},
		{socket, http.MethodPost, "/workspace?path=link/new", body(1), 403},
		{socket, http.MethodPost, "/workspace?path=file-link", body(1), 403},
		{readOnly, http.MethodPost, "/workspace?path=new", body(1), 403},
		{readOnly, http.MethodPost, "/blob", strings.NewReader("GIF89a"), 403},
		{socket, http.MethodGet, "/workspace?path=large", nil, 413},
		{socket, http.MethodPost, "/workspace?path=new", body(api.MaxWorkspaceFile + 1), 413},
		{socket, http.MethodPost, "/workspace?path=new", endless(api.MaxWorkspaceFile + 1), 413},
		{socket, http.MethodPost, "/workspace?path=new", endless(api.MaxWorkspaceFile + 8<<10), 413},
		{socket, http.MethodPost, "/blob", body(api.MaxWorkspaceFile + 1), 413},
		{socket, http.MethodPost, "/blob", strings.NewReader("<svg/>"), 400},
		{socket, http.MethodGet, "/workspace?path=none", nil, 404},
		{socket, http.MethodGet, "/workspace/tree?path=none", nil, 404},
		{socket, http.MethodGet, "/workspace?path=", nil, 400},
		{socket, http.MethodGet, "/workspace/tree?path=file", nil, 400},
		{socket, http.MethodPost, "/workspace?path=file/x", body(1), 400},
		{socket, http.MethodPost, "/workspace?path=a%00b", body(1), 403},
		{socket, http.MethodPut, "/workspace?path=x", body(1), 405},
	} {
		what := fmt.Sprintf("%s %s", c.method, c.path)
		if status, kind := roundTrip(t, c.socket, c.method, "/v1/instances/web"+c.path, c.body); status != c.status || kind != "application/json" {
			t.Errorf("%s: %d, %s; want %d", what, status, kind, c.status)
		}
	}
	if status, _ := roundTrip(t, socket, http.MethodGet, "/v1/instances/other/workspace/tree", nil); status != 404 {
		t.Errorf("an instance that is not there: %d", status)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 4 {
		t.Errorf("left: %v, %v", list, err)
	}
}

// nulls is a reader without end.
type nulls struct{}

func (nulls) Read(b []byte) (int, error) { return len(b), nil }

// roundTrip makes a request, and returns the answer's status and what it is.
func roundTrip(t *testing.T, socket, method, path string, body io.Reader) (status int, kind string) {
	t.Helper()
	conn := dial(t, socket)
	req, err := http.NewRequestWithContext(t.Context(), method, "http://aegisd"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = req.Write(conn) // the answer may come before its end
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	_ = resp.Body.Close() // not read
	_ = conn.Close()
	<-sent
	return resp.StatusCode, resp.Header.Get("Content-Type")
}
