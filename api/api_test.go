package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestErrorRoundTrip sends every kind over the wire and back.
func TestErrorRoundTrip(t *testing.T) {
	for _, k := range fault.Kinds() {
		in := fmt.Errorf("start inst-1: %w", fault.New(k, "no luck").By(fault.Guest).WithHint("try again").WithExit(127))
		b, err := json.Marshal(ErrorOf(in))
		if err != nil {
			t.Fatal(err)
		}
		var wire Error
		if err := json.Unmarshal(b, &wire); err != nil {
			t.Fatal(err)
		}
		want := fault.Error{Kind: k, Blame: fault.Guest, Msg: "start inst-1: no luck", Hint: "try again", Exit: 127}
		if got := *wire.Fault(); got != want {
			t.Errorf("%s came back as %+v, want %+v", k, got, want)
		}
	}
	if k := (Error{Error: "x", Code: "from the future"}).Fault().Kind; k != fault.Internal {
		t.Errorf("an unknown code is %s, want internal", k)
	}
	if ErrorOf(errors.New("plain")).Code != "internal" {
		t.Error("a plain error is internal")
	}
}

// TestWire holds the JSON of every type against a golden file: names are a contract.
func TestWire(t *testing.T) {
	var got bytes.Buffer
	for _, v := range []any{
		Error{Error: "no-such-command: not found", Code: "not_found", Hint: "look at PATH", Blame: "program", Exit: 127},
		Error{Error: "bad name", Code: "invalid"},
		Status{
			Status: "running", Version: "1.0.0", PID: 42, Home: "/home/u/.aegis", Backend: "qemu", Accel: "tcg",
			Isolation: "emulated", VMM: "7.2.22", Capabilities: Abilities{Pause: true}, Instances: 1,
		},
		RunRequest{Command: []string{"true"}},
		RunRequest{
			Command: []string{"echo", "hi"}, Env: map[string]string{"A": "1"}, Handle: "box", Workdir: "/tmp", User: "nobody",
			ImageRef: "base", MemoryMB: 512, VCPUs: 2, DiskMB: 8192, Stdin: true, TTY: &Winsize{Cols: 80, Rows: 24},
		},
		Ready{PID: 7},
		Ready{PID: 7, Error: &Error{Error: "no", Code: "conflict"}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%T %s\n", v, b)
	}
	file := filepath.Join("testdata", "wire.golden")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("wire form changed:\n%s\nwant:\n%s", got.Bytes(), want)
	}
}
