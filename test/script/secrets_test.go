package script

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/xfeldman/aegisvm/internal/presence"
)

// get is a script's command: get FILE PATH.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get FILE PATH")
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return presence.Dial(ctx, homeOf(ts).Socket())
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := c.Get("http://aegisd" + args[1])
	ts.Check(err)
	body, err := io.ReadAll(resp.Body)
	ts.Check(errors.Join(err, resp.Body.Close()))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), append([]byte(resp.Status+"\n"), body...), 0o600))
}

// nowhere is a script's command: nowhere FILE [OTHER...].
func nowhere(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: nowhere FILE [OTHER...]")
	}
	planted := strings.TrimSpace(ts.ReadFile(args[0]))
	places := 0
	look := func(path string) {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err != nil && strings.HasPrefix(path, "/proc/") {
			return // a process that has ended, or another user's
		}
		ts.Check(err)
		places++
		for _, form := range []string{planted, base64.StdEncoding.EncodeToString([]byte(planted))} {
			if strings.Contains(string(b), form) {
				ts.Fatalf("%s has %q", path, form)
			}
		}
	}
	for _, o := range args[1:] {
		look(ts.MkAbs(o))
	}
	ts.Check(filepath.WalkDir(string(homeOf(ts)), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			look(path)
		}
		return err
	}))
	if places < len(args)+3 { // the database, its journal, the log, the key
		ts.Fatalf("only %d files were looked at", places)
	}
	procs, err := filepath.Glob("/proc/[0-9]*") // Linux only
	ts.Check(err)
	for _, p := range procs {
		look(filepath.Join(p, "cmdline"))
		look(filepath.Join(p, "environ"))
	}
}
