package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/xfeldman/aegisvm/internal/config"
)

// TestLogIsBounded writes many lines: the log and the one before it hold the newest,
// whole, and another descriptor of the file goes on working.
func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const limit = 1000
	if err := os.WriteFile(path, []byte("of an earlier daemon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stderr, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 100 {
				if _, err := fmt.Fprintf(l, "writer %d line %03d\n", w, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := fmt.Fprintln(stderr, "a crash"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if len(now) > limit+100 || len(old) > limit || len(old) < limit/2 {
		t.Errorf("%d and %d bytes, want about %d at most", len(now), len(old), limit)
	}
	if !bytes.HasSuffix(now, []byte("a crash\n")) {
		t.Errorf("the other descriptor's line is not last:\n%s", now)
	}
	for line := range strings.Lines(string(old) + string(now)) {
		if len(line) != len("writer 0 line 000\n") && line != "a crash\n" {
			t.Errorf("a line was cut: %q", line)
		}
	}
}

func TestLogOfNowhere(t *testing.T) {
	if _, err := openLog(filepath.Join(t.TempDir(), "no", "log"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("openLog = %v", err)
	}
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[config.LogFormat]string{config.LogText: "msg=hello", config.LogJSON: `"msg":"hello"`} {
		var b bytes.Buffer
		log := newLogger(&b, &config.Config{LogFormat: format})
		log.DebugContext(t.Context(), "silent")
		log.InfoContext(t.Context(), "hello")
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "silent") {
			t.Errorf("%s: %s", format, b.String())
		}
	}
}
