package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const goarch = runtime.GOARCH

// stopGrace is how long a stopped program may tidy up before it is killed.
const stopGrace = 5 * time.Second

// Client runs apt on a folder of its own. It is for one goroutine.
type Client struct {
	dir string
}

// New makes a client in dir, which is made, for packages of that architecture from those
// sources. Debian names architectures as Go does; "" is the host's own.
func New(dir, arch string, sources []Source) (*Client, error) {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "packages"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	c := &Client{dir}
	for name, text := range map[string]string{
		"status":       "", // nothing is installed here
		"sources.list": strings.Join(Lines(sources), "\n") + "\n",
		"apt.conf":     c.config(arch),
	} {
		if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Client) path(name string) string { return filepath.Join(c.dir, name) }

// config is read after the host's own configuration, whose proxies stay. The
// host's hooks are about the host's packages and do not run.
func (c *Client) config(arch string) string {
	other := ""
	if arch != "" {
		other = fmt.Sprintf("APT::Architecture %[1]q;\n#clear APT::Architectures;\nAPT::Architectures { %[1]q; };\n", arch)
	}
	return other + fmt.Sprintf(`Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Log "%[1]s";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
`, c.dir)
}

// Update fetches the sources' lists.
func (c *Client) Update(ctx context.Context) error {
	_, err := c.run(ctx, "apt-get", "update", "-q")
	return err
}

// Closure follows the dependencies of the package from to all packages whose
// names match, and returns these in the order they were met.
func (c *Client) Closure(ctx context.Context, from string, match *regexp.Regexp) ([]string, error) {
	var found []string
	todo, seen := []string{from}, map[string]bool{}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		out, err := c.run(ctx, "apt-cache", "show", "--no-all-versions", "--", name)
		if err != nil {
			return nil, err
		}
		if match.MatchString(name) {
			found = append(found, name)
		}
		f := fields(out)
		for _, dep := range dependencies(f["depends"] + "," + f["pre-depends"]) {
			if match.MatchString(dep) {
				todo = append(todo, dep)
			}
		}
	}
	return found, nil
}

// dependencies returns the names in a Depends field, the first of alternatives.
func dependencies(field string) []string {
	var names []string
	for item := range strings.SplitSeq(field, ",") {
		first, _, _ := strings.Cut(item, "|")
		if words := strings.FieldsFunc(first, func(r rune) bool { return strings.ContainsRune(" \t\n(:", r) }); len(words) > 0 {
			names = append(names, words[0])
		}
	}
	return names
}

// Download fetches packages and returns their files.
func (c *Client) Download(ctx context.Context, packages ...string) ([]string, error) {
	before, err := filepath.Glob(c.path("packages/*.deb"))
	if err != nil {
		return nil, err
	}
	if _, err := c.run(ctx, "apt-get", append([]string{"download", "-q"}, packages...)...); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(c.path("packages/*.deb"))
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(before, f) })
	if len(files) != len(packages) {
		return nil, fmt.Errorf("apt-get download left %d files for %d packages", len(files), len(packages))
	}
	return files, nil
}

func (c *Client) run(ctx context.Context, name string, args ...string) (string, error) {
	return run(ctx, c.path("packages"), name, append([]string{"-c", c.path("apt.conf")}, args...)...)
}

// Unpack puts the files of a package below dir, without its scripts.
func Unpack(ctx context.Context, file, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	_, err := run(ctx, dir, "dpkg-deb", "-x", file, dir)
	return err
}

// run runs a program to its end and returns its standard output. When ctx ends
// the program is asked to stop, so that it can remove what it has begun.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch {
	case err == nil:
		return stdout.String(), nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("this host has no %s: %w", name, err)
	}
	return "", fmt.Errorf("%s %s: %w: %s", name, args[min(2, len(args)-1)], err, lastLines(stderr.String()))
}

// lastLines returns what a program complained of at the end.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
