package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/blob"
	"github.com/xfeldman/aegisvm/internal/agent/memory"
	"github.com/xfeldman/aegisvm/internal/agent/process"
	"github.com/xfeldman/aegisvm/internal/cron"
	"github.com/xfeldman/aegisvm/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a set of tools in a folder of its own.
type bench struct {
	t   *testing.T
	dir string
	set *Set
}

func newBench(t *testing.T, more ...Tool) *bench {
	t.Helper()
	dir := t.TempDir()
	blobs := &blob.Store{Dir: filepath.Join(dir, ".blobs")}
	tools := append([]Tool{Bash(dir, filepath.Join(dir, ".outputs"), 0), Respond(dir, blobs)}, more...)
	tools = append(tools, Files(dir, blobs)...)
	tools = append(tools, Find(dir)...)
	tools = append(tools, Memory(memory.New(filepath.Join(dir, ".memory.json")))...)
	tools = append(tools, Cron(filepath.Join(dir, "cron.json"))...)
	return &bench{t: t, dir: dir, set: NewSet(tools, secret.New("sk-very-secret"))}
}

// use uses a tool, and returns what the model is told, errors with "Error: " before them.
func (b *bench) use(name string, args any) string {
	b.t.Helper()
	return b.useIn(b.t.Context(), name, args)
}

func (b *bench) useIn(ctx context.Context, name string, args any) string {
	b.t.Helper()
	raw, err := json.Marshal(args)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := b.set.Run(ctx, name, Call{Args: raw, Mark: "tool-test/" + b.t.Name(), Reply: func(api.Picture) {}})
	if err != nil {
		return "Error: " + err.Error()
	}
	return r.Text
}

func (b *bench) write(name, data string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

type m = map[string]any

// expect says what the model is to be told: parts of it.
func (b *bench) expect(name string, args any, parts ...string) {
	b.t.Helper()
	got := b.use(name, args)
	for _, p := range parts {
		if !strings.Contains(got, p) {
			b.t.Errorf("%s %v: %q, want %q in it", name, args, got, p)
		}
	}
}

func TestBash(t *testing.T) {
	b := newBench(t)
	b.expect("bash", m{"command": "echo out; echo err >&2; exit 3"}, "out\n", "err\n", "[exit status 3]")
	b.expect("bash", m{"command": "true"}, "(no output)")
	b.expect("bash", m{"command": "pwd"}, b.dir)
	b.expect("bash", m{"command": "sleep 100", "timeout_s": 0.1}, "[killed after 100ms")
	b.expect("bash", m{"command": "kill -9 $$"}, "[ended by a signal")
	b.expect("bash", m{"command": " "}, "Error: command is empty")
	b.expect("bash", m{"comand": "x"}, `Error: the arguments are wrong: unknown field "comand"`)
	b.expect("bash", m{"command": "x", "workdir": "no"}, "is no folder")
	b.expect("bash", m{"command": "echo the key is sk-very-secret"}, "the key is [secret]")
	b.expect("bash", m{"command": `printf '\xff\x00ok'`}, "ok")
	b.expect("nothing", m{}, `Error: there is no tool "nothing"; there are: bash,`)
}

func TestBashLongOutput(t *testing.T) {
	b := newBench(t)
	got := b.use("bash", m{"command": "seq 100000"})
	if len(got) > maxText+200 || !strings.HasPrefix(got, "1\n2\n") || !strings.Contains(got, "99999\n100000") {
		t.Errorf("%d bytes: %.100s", len(got), got)
	}
	_, path, _ := strings.Cut(got, "all of it is in ")
	data, err := os.ReadFile(strings.TrimSuffix(path, "]"))
	if err != nil || strings.Count(string(data), "\n") != 100000 {
		t.Errorf("the file has %d bytes, %v", len(data), err)
	}
	if got := b.use("bash", m{"command": "head -c 30000000 /dev/zero | tr '\\0' x"}); !strings.Contains(got, "more bytes were dropped") {
		t.Errorf("no end: %.200s", got[len(got)-200:])
	}
}

// TestBashDoesNotWaitForWhatItLeaves: a child that holds the output does not hold the call.
func TestBashDoesNotWaitForWhatItLeaves(t *testing.T) {
	b := newBench(t)
	got := make(chan string, 1)
	go func() { got <- b.use("bash", m{"command": "sleep 60 & echo started"}) }()
	select {
	case text := <-got:
		if !strings.Contains(text, "started") {
			t.Errorf("%q", text)
		}
	case <-time.After(30 * time.Second):
		t.Error("the call waits for its child")
	}
	process.End("tool-test/" + t.Name())
}

func TestBashBackground(t *testing.T) {
	b := newBench(t)
	got := b.use("bash", m{"command": "echo hello; sleep 0.05; echo more", "background": true})
	_, rest, _ := strings.Cut(got, "output in ")
	path, _, _ := strings.Cut(rest, "\n")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if data, err := os.ReadFile(path); err == nil && string(data) == "hello\nmore\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q", got)
		}
	}
}

func TestFiles(t *testing.T) {
	b := newBench(t)
	b.expect("write_file", m{"path": "a/b.txt", "content": "one\ntwo\nthree\n"}, "wrote", "3 lines")
	b.expect("read_file", m{"path": "a/b.txt"}, "one\ntwo\nthree\n")
	b.expect("read_file", m{"path": "a/b.txt", "offset": 2, "limit": 1}, "two\n[lines 2 to 2 of 3]")
	b.expect("read_file", m{"path": "a/no"}, "Error: there is no file")
	b.expect("read_file", m{"path": "a"}, "is a folder")
	b.expect("read_file", m{"path": "/dev/zero"}, "no regular file")
	b.expect("edit_file", m{"path": "a/b.txt", "old": "two", "new": "2"}, "-two", "+2", " one")
	b.expect("edit_file", m{"path": "a/b.txt", "old": "four", "new": "4"}, "Error: old is not in")
	b.expect("edit_file", m{"path": "a/b.txt", "old": "e", "new": "E"}, "3 times")
	b.expect("edit_file", m{"path": "a/b.txt", "old": "e", "new": "E", "all": true}, "+onE", "+thrEE")
	b.expect("edit_file", m{"path": "a/b.txt", "old": "", "new": "E"}, "use write_file")
	b.expect("write_file", m{"path": "a/b.txt", "content": "onE\nx\n"}, "-2", "+x")
	b.write("long", strings.Repeat("line\n", 5000))
	b.expect("read_file", m{"path": "long"}, "[lines 1 to 1500 of 5000]")
	b.write("binary", "\x7fELF\x00\x01")
	b.expect("read_file", m{"path": "binary"}, "is not text")
	b.expect("respond_with_image", m{"path": "binary"}, "not a picture")
}

func TestWriteKeepsLinkAndMode(t *testing.T) {
	b := newBench(t)
	b.write("real", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(b.dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(b.dir, "link")); err != nil {
		t.Fatal(err)
	}
	b.use("write_file", m{"path": "link", "content": "new"})
	fi, err := os.Lstat(filepath.Join(b.dir, "link"))
	if err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Join(b.dir, "real")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("the file is %v, %v", fi.Mode(), err)
	}
}

func TestFind(t *testing.T) {
	b := newBench(t)
	b.write("src/a.go", "package a\nfunc Hello() {}\n")
	b.write("src/deep/b.go", "package b\n")
	b.write("src/c.txt", "hello there\n")
	b.write("node_modules/x.go", "package x\n")
	b.write("bin", "hello\x00")
	b.expect("glob", m{"pattern": "**/*.go"}, "src/a.go", "src/deep/b.go")
	if got := b.use("glob", m{"pattern": "**/*.go"}); strings.Contains(got, "node_modules") {
		t.Errorf("glob: %s", got)
	}
	b.expect("glob", m{"pattern": "src/*.{go,txt}"}, "a.go", "c.txt")
	b.expect("glob", m{"pattern": "*.rs"}, "no file matches")
	b.expect("glob", m{"pattern": "[a"}, "Error:")
	b.expect("grep", m{"pattern": "hello", "ignore_case": true}, "a.go:2:func Hello", "c.txt:1:hello there")
	b.expect("grep", m{"pattern": "hello", "glob": "*.go"}, "no line matches")
	b.expect("grep", m{"pattern": "("}, "Error: pattern")
	b.expect("list_files", m{"path": "src", "depth": 2}, "a.go  ", "deep/", "deep/b.go")
	b.expect("list_files", m{"path": "src/a.go"}, "no folder")
}

func TestMemory(t *testing.T) {
	b := newBench(t)
	got := b.use("memory_store", m{"text": "the user likes tea", "tags": []string{"food"}})
	id := strings.TrimPrefix(got, "remembered as ")
	b.use("memory_store", m{"text": "the build is make"})
	b.expect("memory_search", m{"query": "FOOD"}, id, "tea")
	b.expect("memory_search", m{}, "tea", "make")
	b.expect("memory_search", m{"query": "nothing"}, "nothing found")
	b.expect("memory_delete", m{"id": id}, "forgotten")
	b.expect("memory_delete", m{"id": id}, "Error: there is no note")
	b.expect("memory_store", m{"text": strings.Repeat("x", 5000)}, "Error: a note has")
	b.write(".memory.json", "{")
	b.expect("memory_store", m{"text": "x"}, ".memory.json cannot be read: it ends in the middle")
}

func TestCron(t *testing.T) {
	b := newBench(t)
	b.expect("cron_list", m{}, "there are no entries")
	b.expect("cron_create", m{"id": "mail", "schedule": "*/5  8-18 * * 1-5", "message": "look for mail", "on_conflict": "replace"}, "created mail; the next time is")
	b.expect("cron_create", m{"id": "mail", "schedule": "* * * * *", "message": "x"}, "already")
	b.expect("cron_disable", m{"id": "mail"}, "done")
	var entries []cronEntry
	data, err := os.ReadFile(filepath.Join(b.dir, "cron.json"))
	if err != nil || json.Unmarshal(data, &entries) != nil || len(entries) != 1 {
		t.Fatalf("%s, %v", data, err)
	}
	if e := entries[0]; e.Enabled || e.Schedule != "*/5 8-18 * * 1-5" || e.OnConflict != "replace" || e.CreatedAt.IsZero() {
		t.Errorf("entry: %+v", e)
	}
	b.expect("cron_enable", m{"id": "mail"}, "done")
	b.expect("cron_delete", m{"id": "mail"}, "done")
	b.expect("cron_delete", m{"id": "mail"}, "Error: there is no entry")
	for _, bad := range []string{"", "* * * *", "61 * * * *", "@every 5m", "TZ=UTC", "TZ=x * * * * *", "* * * * * *", strings.Repeat("1,", 300) + "1 * * * *"} {
		b.expect("cron_create", m{"schedule": bad, "message": "x"}, "Error:")
	}
	b.expect("cron_create", m{"schedule": "* * * * *", "message": strings.Repeat("x", 9000)}, "Error: message")
	for i := range cron.MaxEntries {
		b.use("cron_create", m{"id": fmt.Sprint("e", i), "schedule": "0 0 * * *", "message": "x"})
	}
	b.expect("cron_create", m{"schedule": "* * * * *", "message": "x"}, "as many as there may be")
}

func TestWeb(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte(`<html><head><title>T</title><script>bad()</script></head><body><h1>Head &amp; line</h1><p>Some <a href="/next">link</a>.</p><ul><li>one<li>two</ul><nav>menu</nav><pre>a  b</pre>`))
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/binary":
			w.Header().Set("Content-Type", "application/zip")
			_, _ = w.Write([]byte("PK\xff\xfe"))
		case "/web/search":
			if r.Header.Get("X-Subscription-Token") != "brave-key" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = w.Write([]byte(`{"web":{"results":[{"title":"A <b>title</b>","url":"http://a","description":"about ` + r.URL.Query().Get("q") + `"}]}}`))
		case "/images/search":
			_, _ = w.Write([]byte(`{"results":[{"title":"pic","url":"http://p","properties":{"url":"http://p/i.png"}}]}`))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	b := newBench(t, append(Search(client, s.URL, secret.New("brave-key")), Web(client))...)
	b.expect("web_fetch", m{"url": s.URL + "/page"}, "# Head & line", "link ("+s.URL+"/next)", "- one", "- two", "a  b")
	if got := b.use("web_fetch", m{"url": s.URL + "/page"}); strings.Contains(got, "bad()") || strings.Contains(got, "menu") {
		t.Errorf("%q", got)
	}
	b.expect("web_fetch", m{"url": s.URL + "/page", "max_chars": 5}, "go on with offset 5")
	b.expect("web_fetch", m{"url": s.URL + "/none"}, "Error:", "404")
	b.expect("web_fetch", m{"url": s.URL + "/loop"}, "too many redirects")
	b.expect("web_fetch", m{"url": s.URL + "/binary"}, "not text")
	b.expect("web_fetch", m{"url": "file:///etc/passwd"}, "is no http or https URL")
	b.expect("web_search", m{"query": "go"}, "A title\nhttp://a\nabout go")
	b.expect("image_search", m{"query": "go"}, "image: http://p/i.png")
	b.expect("web_search", m{"query": ""}, "Error: query")
}

func TestGenerate(t *testing.T) {
	const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer k" || r.URL.Path != "/images/generations" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":{"message":"no such key"}}`))
			return
		}
		_, _ = w.Write([]byte(`{"created":1,"data":[{"b64_json":"` + png + `"}]}`))
	}))
	t.Cleanup(s.Close)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	dir := t.TempDir()
	conf := Images{Client: client, BaseURL: s.URL + "/", Key: secret.New("k"), Blobs: &blob.Store{Dir: filepath.Join(dir, "b")}, Dir: dir}
	b := newBench(t, Generate(conf))
	b.expect("image_generate", m{"prompt": "a dot", "path": "dot.png"}, "made "+filepath.Join(dir, "dot.png"))
	conf.Key = secret.New("wrong")
	newBench(t, Generate(conf)).expect("image_generate", m{"prompt": "a dot"}, "Error: the picture was refused (status 401): no such key")
}

func TestCancelEndsTools(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if got := b.useIn(ctx, "bash", m{"command": "sleep 100"}); !strings.Contains(got, "killed") && !strings.Contains(got, "Error") {
		t.Errorf("%q", got)
	}
}

func FuzzDiff(f *testing.F) {
	f.Add("a\nb\nc\n", "a\nx\nc\n")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, a, b string) {
		if got := diff(a, b); (got == "(nothing changed)") != (a == b) {
			t.Fatalf("%q", got)
		}
	})
}
