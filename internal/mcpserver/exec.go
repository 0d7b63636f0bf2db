package mcpserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

type execInput struct {
	Name     ref               `json:"name" jsonschema:"handle or id of the instance"`
	Command  []string          `json:"command" jsonschema:"program and arguments; for pipes, globs and && use [\"sh\",\"-c\",\"...\"]"`
	Env      map[string]string `json:"env,omitempty" jsonschema:"further environment variables"`
	Workdir  string            `json:"workdir,omitempty" jsonschema:"folder in the VM in which the command starts"`
	User     string            `json:"user,omitempty" jsonschema:"user in the VM; root unless the image says otherwise"`
	Stdin    string            `json:"stdin,omitempty" jsonschema:"text that the command reads from its stdin, such as a script for [\"python3\",\"-\"]"`
	TimeoutS int               `json:"timeout_s,omitempty" jsonschema:"end the command, with all it started, after so many seconds; without it it may take for ever"`
}

type execOutput struct {
	ExecID      string   `json:"exec_id" jsonschema:"the name of this command's output in logs"`
	ExitCode    int      `json:"exit_code" jsonschema:"the command's own, 128 and the number of the signal that ended it, or 124 after timeout_s"`
	TimedOut    bool     `json:"timed_out,omitempty"`
	Stdout      string   `json:"stdout"`
	Stderr      string   `json:"stderr"`
	StdoutBytes int64    `json:"stdout_bytes" jsonschema:"how much it wrote"`
	StderrBytes int64    `json:"stderr_bytes" jsonschema:"how much it wrote"`
	Truncated   bool     `json:"truncated" jsonschema:"not all of the output is here: the middle was left out"`
	StdoutB64   string   `json:"stdout_base64,omitempty" jsonschema:"the beginning of an output that is binary"`
	StderrB64   string   `json:"stderr_base64,omitempty" jsonschema:"the beginning of an output that is binary"`
	Notices     []string `json:"notices,omitempty" jsonschema:"what AegisVM has to say about it"`
	DurationMS  int64    `json:"duration_ms"`
}

func (o execOutput) text() string {
	var b strings.Builder
	stream := func(name, text, b64 string, total int64) {
		switch {
		case b64 != "":
			fmt.Fprintf(&b, "%s: %d bytes, binary; write it to a file in the VM and use file_read, or convert it there\n", name, total)
		case text != "" && name == "stdout":
			b.WriteString(strings.TrimSuffix(text, "\n") + "\n")
		case text != "":
			fmt.Fprintf(&b, "%s:\n%s\n", name, strings.TrimSuffix(text, "\n"))
		}
	}
	stream("stdout", o.Stdout, o.StdoutB64, o.StdoutBytes)
	stream("stderr", o.Stderr, o.StderrB64, o.StderrBytes)
	for _, n := range o.Notices {
		fmt.Fprintf(&b, "[aegis] %s\n", n)
	}
	if o.TimedOut {
		b.WriteString("timed out: the command was ended. ")
	}
	fmt.Fprintf(&b, "exit code %d (exec_id %s)", o.ExitCode, o.ExecID)
	return b.String()
}

func (s *Server) addExec() {
	add(s, tool[execInput, execOutput]{
		name: "exec", title: "Run a command", effect: adds, open: true,
		about: "Run a command in an instance and return its output and exit code when it ends. The instance wakes for it and stays awake meanwhile. " +
			"A command that fails is a result with its exit_code, not an error. Of long output beginning and end are returned; logs {name, exec_id} has the rest. " +
			"For a server use the command of instance_start, or start it in the background with its output in a file. Cancelling the call ends the command.",
		refine: func(in *jsonschema.Schema) {
			one, zero := 1, 0.0
			in.Properties["command"].MinItems = &one
			in.Properties["timeout_s"].Minimum = &zero
		},
		do: s.exec,
	})
}

// errTimeout is the cause of a context that timeout_s has ended.
var errTimeout = errors.New("timeout_s has passed")

// timeoutStatus is what timeout(1) returns.
const timeoutStatus = 124

func (s *Server) exec(ctx context.Context, c *call, in execInput) (out execOutput, err error) {
	if in.TimeoutS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(in.TimeoutS)*time.Second, errTimeout)
		defer cancel()
	}
	begun := time.Now()
	c.progress.say("waking %s", in.Name)
	attach, err := s.api.Exec(ctx, string(in.Name), api.ExecRequest{
		Command: in.Command, Env: in.Env, Workdir: in.Workdir, User: in.User, Stdin: in.Stdin != "",
	})
	if errors.Is(err, errTimeout) {
		err = fault.Wrap(fault.Timeout, err, "%s did not wake in time", in.Name)
	}
	if err != nil {
		return out, err
	}
	c.progress.say("running %s", in.Command[0])
	x := newTranscript(c.progress)
	out.ExecID = attach.Instance()
	out.ExitCode, err = attach.Stream(ctx, x.streams(in.Stdin))
	if errors.Is(err, errTimeout) {
		out.TimedOut, out.ExitCode, err = true, timeoutStatus, nil
	}
	x.fill(&out, fmt.Sprintf("logs with exec_id %s has it", out.ExecID))
	out.DurationMS = time.Since(begun).Milliseconds()
	if err != nil && out.StdoutBytes+out.StderrBytes > 0 {
		err = fmt.Errorf("%w\nuntil then it wrote:\n%s%s", err, out.Stdout, out.Stderr)
	}
	return out, err
}

// transcript is what a command writes, as far as it is kept.
type transcript struct {
	progress       *progress
	stdout, stderr *window

	mu      sync.Mutex
	notices []string
}

func newTranscript(p *progress) *transcript {
	return &transcript{progress: p, stdout: newWindow(), stderr: newWindow()}
}

func (x *transcript) streams(stdin string) client.Streams {
	st := client.Streams{
		Stdout: told{x.stdout, x.progress}, Stderr: told{x.stderr, x.progress},
		Notice: func(e *client.Error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.notices = append(x.notices, e.Error())
		},
	}
	if stdin != "" {
		st.Stdin = strings.NewReader(stdin)
	}
	return st
}

// fill sets the output's part of a result.
func (x *transcript) fill(out *execOutput, where string) {
	o, e := x.stdout.excerpt(where), x.stderr.excerpt(where)
	out.Stdout, out.StdoutB64, out.StdoutBytes = o.text, o.base64, o.total
	out.Stderr, out.StderrB64, out.StderrBytes = e.text, e.base64, e.total
	out.Truncated = o.cut || e.cut
	x.mu.Lock()
	defer x.mu.Unlock()
	out.Notices = append([]string(nil), x.notices...)
}

// told is a stream whose lines are progress.
type told struct {
	*window
	progress *progress
}

// maxProgressLine bounds a line that is told as progress, in bytes.
const maxProgressLine = 200

// Write implements io.Writer.
func (t told) Write(b []byte) (int, error) {
	if t.progress != nil && !isBinary(b) {
		if line := lastLine(b); line != "" {
			t.progress.say("%s", line)
		}
	}
	return t.window.Write(b)
}

// lastLine returns the last line of b that is not empty, or its beginning.
func lastLine(b []byte) string {
	b = b[max(0, len(b)-4*maxProgressLine):]
	text := strings.TrimSpace(readable(b))
	line := strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
	if len(line) > maxProgressLine {
		line = readable(endLine([]byte(line[:maxProgressLine]))) + "..."
	}
	return line
}
