package mcpserver

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// file is one in the instance of a test.
type file struct {
	kind byte
	link string
	data string
}

// has gives instance "box" files to read.
func (w *world) has(files map[string]file) {
	w.api.HandleFunc("GET /v1/instances/box/files", func(rw http.ResponseWriter, r *http.Request) {
		path := r.URL.Query().Get("path")
		f, ok := files[path]
		if !ok {
			reply(rw, http.StatusNotFound, api.ErrorOf(fault.New(fault.NotFound, "%s: no such file", path).By(fault.Guest)))
			return
		}
		rw.Header().Set("Trailer", api.CopyTrailer)
		out := tar.NewWriter(rw)
		h := &tar.Header{Typeflag: f.kind, Name: path[strings.LastIndexByte(path, '/')+1:], Linkname: f.link, Mode: 0o640, Size: int64(len(f.data))}
		if err := out.WriteHeader(h); err != nil {
			w.t.Error(err)
		}
		_, _ = out.Write([]byte(f.data)) // who has read enough has gone
		_ = out.Close()                  // as above
		rw.Header().Set(api.CopyTrailer, `{"notes":[]}`)
	})
}

func TestReadFile(t *testing.T) {
	w := newWorld(t)
	picture := string(pngOf(t))
	long := strings.Repeat("0123456789abcde\n", 1<<20)
	w.has(map[string]file{
		"/a.txt": {kind: tar.TypeReg, data: "one\ntwo\n"}, "/long": {kind: tar.TypeReg, data: long}, "/bin/x": {kind: tar.TypeReg, data: "\x7fELF\x00\xff"},
		"/p.png": {kind: tar.TypeReg, data: picture}, "/dir": {kind: tar.TypeDir}, "/etc/mtab": {kind: tar.TypeSymlink, link: "../proc/mounts"},
		"/empty": {kind: tar.TypeReg},
	})
	read := func(in args) readOutput {
		t.Helper()
		in["name"] = "box"
		return result[readOutput](w, "file_read", in)
	}
	if out := read(args{"path": "/a.txt"}); (out != readOutput{Path: "/a.txt", Size: 8, Mode: "640", Content: "one\ntwo\n"}) {
		t.Errorf("%+v", out)
	}
	if out := read(args{"path": "/empty"}); out.Content != "" || out.Truncated || out.Base64 != "" {
		t.Errorf("empty: %+v", out)
	}
	out := read(args{"path": "/long"})
	if out.Size != int64(len(long)) || len(out.Content) != defaultRead || !out.Truncated || out.NextOffset != defaultRead {
		t.Errorf("long: %d bytes, next %d", len(out.Content), out.NextOffset)
	}
	if out = read(args{"path": "/long", "offset": len(long) - 32, "limit": 100}); out.Content != long[:32] || out.Truncated {
		t.Errorf("its end: %+v", out)
	}
	if out = read(args{"path": "/long", "offset": 8, "limit": 20}); out.Content != "89abcde\n0123456789ab" || out.NextOffset != 28 {
		t.Errorf("its middle: %+v", out)
	}
	if out = read(args{"path": "/long", "offset": len(long) + 5}); out.Content != "" || out.Truncated {
		t.Errorf("behind its end: %+v", out)
	}
	if out = read(args{"path": "/bin/x"}); out.Base64 != base64.StdEncoding.EncodeToString([]byte("\x7fELF\x00\xff")) || out.Content != "" {
		t.Errorf("binary: %+v", out)
	}
	res := w.call("file_read", args{"name": "box", "path": "/p.png"})
	if img, ok := res.Content[len(res.Content)-1].(*mcp.ImageContent); !ok || string(img.Data) != picture || img.MIMEType != "image/png" {
		t.Errorf("picture: %v", res.Content)
	}
	for path, want := range map[string]string{
		"/dir": "is a folder", "/dir/": "is a folder", "/etc/mtab": "read /proc/mounts", "relative": "not an absolute path", "/none": "no such file",
	} {
		if res := w.call("file_read", args{"name": "box", "path": path}); !res.IsError || !strings.Contains(text(res), want) {
			t.Errorf("%s: %q, want %q", path, text(res), want)
		}
	}
}

// TestWriteFile: folders that are missing are made by the archive, from the last one on
// that is there.
func TestWriteFile(t *testing.T) {
	w := newWorld(t)
	var asked []string
	var got bytes.Buffer
	var head tar.Header
	w.api.HandleFunc("PUT /v1/instances/box/files", func(rw http.ResponseWriter, r *http.Request) {
		dir := r.URL.Query().Get("path")
		asked = append(asked, dir)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.HasPrefix(dir, "/srv/") {
			reply(rw, http.StatusNotFound, api.ErrorOf(fault.New(fault.NotFound, "no such folder").By(fault.Guest)))
			return
		}
		in := tar.NewReader(bytes.NewReader(body))
		h, err := in.Next()
		if err != nil {
			t.Error(err)
			return
		}
		head = *h
		if _, err := got.ReadFrom(in); err != nil {
			t.Error(err)
		}
		reply(rw, http.StatusOK, api.Copied{})
	})
	out := result[written](w, "file_write", args{"name": "box", "path": "/srv/a/b/run.sh", "content": "#!/bin/sh\n", "mode": "755"})
	if (out != written{"/srv/a/b/run.sh", 10}) || strings.Join(asked, " ") != "/srv/a/b /srv/a /srv" || head.Name != "a/b/run.sh" || head.Mode != 0o755 ||
		got.String() != "#!/bin/sh\n" {
		t.Errorf("%+v, asked %q, %+v, %q", out, asked, head, got.String())
	}
	asked = nil
	got.Reset()
	result[written](w, "file_write", args{"name": "box", "path": "/x", "content": base64.StdEncoding.EncodeToString([]byte{0, 255}), "encoding": "base64"})
	if strings.Join(asked, " ") != "/" || head.Name != "x" || head.Mode != 0o644 || got.String() != "\x00\xff" {
		t.Errorf("asked %q, %+v, %q", asked, head, got.String())
	}
	for _, in := range []args{
		{"path": "/x", "content": "?", "encoding": "base64"}, {"path": "x", "content": ""}, {"path": "/x", "content": "", "mode": "rwx"}, {"path": "/x/", "content": ""},
	} {
		in["name"] = "box"
		if res := w.call("file_write", in); !res.IsError {
			t.Errorf("%v: %q", in, text(res))
		}
	}
}
