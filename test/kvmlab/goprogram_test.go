package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestHandOut(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"guestinit", "hostclock.test"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string // what is handed out; "" is nothing
	}{
		{[]string{"build", "-trimpath", "-o", "FILE", "example.com/x/guestinit"}, "guestinit"},
		{[]string{"test", "-c", "-o", "FILE", "example.com/x/hostclock"}, "hostclock.test"},
		{[]string{"build", "-o", "FILE", "example.com/x/hostclock"}, ""},
		{[]string{"build", "example.com/x/guestinit", "-o", "FILE"}, ""},
		{[]string{"vet", "-x", "-o", "FILE", "guestinit"}, ""},
		{[]string{"build", "-o"}, ""},
		{nil, ""},
	} {
		file := filepath.Join(t.TempDir(), "file")
		for i, a := range c.args {
			if a == "FILE" {
				c.args[i] = file
			}
		}
		err := handOut(c.args, filepath.Join(dir, "missing"), dir)
		got, read := os.ReadFile(file)
		if c.want == "" && (err == nil || !errors.Is(read, os.ErrNotExist)) || c.want != "" && (err != nil || string(got) != c.want) {
			t.Errorf("go %q: %v, %q; want %q", c.args, err, got, c.want)
		}
	}
}
