package docs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a command may take before it counts as one that hangs.
const patience = 3 * time.Minute

// settling is how long what a command tells may take to become what a page shows.
const settling = 20 * time.Second

// looks are commands that only tell how things are: they are asked again until things
// are as the page shows, as a reader would.
var looks = regexp.MustCompile(`^(aegis (logs|status|instance (list|info|tree|schedules)|tether read|snapshot list|kit list)|curl|ls|cat)\b`)

// Shell runs the consoles of one page.
type Shell struct {
	t        *testing.T
	dir      string // the page's folder
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	output   *bufio.Reader
	ports    Ports
	commands int
}

// mark ends the output of a command, followed by its status.
const mark = "\x01ended with "

// NewShell starts a shell for a page in a folder of its own. env is its environment, in
// which HOME is the folder above AEGIS_HOME.
func NewShell(t *testing.T, root string, page Page, ports Ports, env []string) *Shell {
	t.Helper()
	s := &Shell{t: t, dir: filepath.Join(t.TempDir(), "page"), ports: ports}
	if err := s.fill(root, page); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.CommandContext(t.Context(), "bash", "--norc", "--noprofile")
	s.cmd.Dir = s.dir
	s.cmd.Env = append(slices.Clip(env), ports.Router(), "NO_COLOR=1", "LC_ALL=C.UTF-8", "PWD="+s.dir)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Cancel = s.kill
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdin, s.output = in, bufio.NewReader(r)
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the shell has it
	t.Cleanup(func() {
		_ = s.stdin.Close() // it ends with its input
		_ = s.cmd.Wait()    // with the status of its last command
		_ = s.kill()        // what it left in the background
		_ = r.Close()       // nobody writes any more
	})
	return s
}

// fill makes the page's folder.
func (s *Shell) fill(root string, page Page) error {
	if dir := filepath.Dir(page.Path); strings.HasPrefix(dir, "examples/") {
		return os.CopyFS(s.dir, os.DirFS(filepath.Join(root, dir)))
	}
	return os.CopyFS(filepath.Join(s.dir, "examples"), os.DirFS(filepath.Join(root, "examples")))
}

func (s *Shell) kill() error { return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) }

// Prepare does what all blocks of a page that are not run by this shell ask for: it writes
// their files.
func (s *Shell) Prepare(b Block) {
	s.t.Helper()
	name := b.Attr["file"]
	if name == "" {
		return
	}
	if !filepath.IsLocal(name) {
		s.t.Fatalf("%s: file=%s", b.Where, name)
	}
	path := filepath.Join(s.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(b.Text), 0o600)); err != nil {
		s.t.Fatal(err)
	}
}

// Run runs the commands of a block, and fails the test where they do not do what the page
// shows. Without compare only their status counts.
func (s *Shell) Run(b Block, compare bool) {
	s.t.Helper()
	for _, c := range b.Commands {
		s.commands++
		begin := time.Now()
		for {
			out, status := s.do(c)
			good := status == 0 || compare && c.Fails() && status != 0
			if compare && c.Fails() && status == 0 {
				good = false
			}
			if good && (!compare || len(lines(c.Output)) == 0 || Match(c.Output, out)) {
				s.t.Logf("%s: %v: %s", c.Where, time.Since(begin).Round(time.Millisecond), c.Text)
				break
			}
			if compare && looks.MatchString(c.Text) && time.Since(begin) < settling {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-s.t.Context().Done():
				}
				continue
			}
			s.t.Errorf("%s: $ %s\nstatus %d, and it prints\n%s\nThe page shows\n%s", c.Where, c.Text, status, out, strings.Join(c.Output, "\n"))
			break
		}
	}
}

// Commands returns how many commands were run.
func (s *Shell) Commands() int { return s.commands }

// do runs one command and returns its output and status.
func (s *Shell) do(c Command) (out string, status int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			_ = s.kill() // the read below ends
		}
	})()
	if _, err := fmt.Fprintf(s.stdin, "{ :\n%s\n} </dev/null\nprintf '\\n%s%%d\\n' $?\n", s.ports.onThisHost(c.Text), mark); err != nil {
		s.t.Fatalf("%s: %v", c.Where, err)
	}
	var b strings.Builder
	for {
		line, err := s.output.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: $ %s\ndoes not end\n%s%s", c.Where, c.Text, b.String(), line)
		}
		if rest, ok := strings.CutPrefix(line, mark); ok {
			status, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				s.t.Fatal(err)
			}
			return s.ports.onThePage(b.String()), status
		}
		b.WriteString(line)
	}
}
