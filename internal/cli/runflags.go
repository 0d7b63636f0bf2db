package cli

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/size"
)

// envFlags is the environment that --env and --env-file give a command: flags win
// over files, later ones over earlier ones.
type envFlags struct {
	lookup func(string) (string, bool)
	flags  map[string]string
	files  map[string]string
}

func (e *envFlags) merged() map[string]string {
	all := map[string]string{}
	maps.Copy(all, e.files)
	maps.Copy(all, e.flags)
	return all
}

// parse reads KEY=VALUE, or KEY for a variable of this process.
func (e *envFlags) parse(s string) (key, value string, err error) {
	key, value, ok := strings.Cut(s, "=")
	if key == "" || strings.ContainsRune(s, 0) {
		return "", "", fmt.Errorf("%q is not KEY=VALUE", s)
	}
	if ok {
		return key, value, nil
	}
	if value, ok = e.lookup(key); !ok {
		return "", "", fmt.Errorf("%s is not set here; give it a value: %s=VALUE", key, key)
	}
	return key, value, nil
}

// envFlag is --env.
type envFlag struct{ env *envFlags }

func (f envFlag) Set(s string) error {
	k, v, err := f.env.parse(s)
	if err != nil {
		return err
	}
	if f.env.flags == nil {
		f.env.flags = map[string]string{}
	}
	f.env.flags[k] = v
	return nil
}

func (envFlag) String() string { return "" }
func (envFlag) Type() string   { return "env" }

// envFileFlag is --env-file.
type envFileFlag struct{ env *envFlags }

func (f envFileFlag) Set(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	if f.env.files == nil {
		f.env.files = map[string]string{}
	}
	return f.read(path, file)
}

// maxEnvLine bounds a line; command and environment together are bounded by the
// daemon.
const maxEnvLine = 1 << 20

// read takes the form that Docker has: blank lines and lines that begin with # say
// nothing, quotes are part of the value.
func (f envFileFlag) read(path string, r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxEnvLine)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimLeft(in.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		k, v, err := f.env.parse(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if strings.TrimRight(k, " \t") != k {
			return fmt.Errorf("%s:%d: a space before =", path, n)
		}
		f.env.files[k] = v
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (envFileFlag) String() string { return "" }
func (envFileFlag) Type() string   { return "file" }

// sizeFlag is a size in whole MB, rounded up; 0 is the daemon's default and cannot
// be asked for.
type sizeFlag struct{ mb int64 }

func (f *sizeFlag) Set(s string) error {
	b, err := size.Parse(s, size.MiB)
	if err != nil {
		return err
	}
	if b == 0 {
		return fmt.Errorf("%q is no size to work with", s)
	}
	f.mb = int64((b-1)/size.MiB) + 1
	return nil
}

func (f *sizeFlag) String() string { return "" }
func (*sizeFlag) Type() string     { return "size" }

// countFlag is a number of 1 or more; 0 is the daemon's default and cannot be asked
// for.
type countFlag int

func (f *countFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is not a number of 1 or more", s)
	}
	*f = countFlag(n)
	return nil
}

func (f *countFlag) String() string { return "" }
func (*countFlag) Type() string     { return "number" }
