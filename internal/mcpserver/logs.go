package mcpserver

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

const (
	defaultTail = 100      // lines of a log
	maxTail     = 2000     // lines of a log
	maxLogBytes = 24 << 10 // of all lines together
	maxLogLine  = 2 << 10  // bytes of one line
)

type logsInput struct {
	Name     ref    `json:"name" jsonschema:"handle or id of the instance"`
	Tail     int    `json:"tail,omitempty" jsonschema:"how many lines, the last ones unless from_line is given; at most 2000"`
	ExecID   string `json:"exec_id,omitempty" jsonschema:"the output of this exec instead of that of the instance's own command"`
	Since    string `json:"since,omitempty" jsonschema:"only what came since then: RFC 3339, or how long ago, such as 10m"`
	Match    string `json:"match,omitempty" jsonschema:"only lines in which this regular expression (RE2) matches"`
	FromLine int    `json:"from_line,omitempty" jsonschema:"begin with this line, counted from 1, to read a long log from the beginning in parts"`
}

type logLine struct {
	TS     time.Time `json:"ts"`
	Source string    `json:"source" jsonschema:"server: the instance's command; exec; system: AegisVM itself"`
	Stream string    `json:"stream" jsonschema:"stdout or stderr"`
	Line   string    `json:"line"`
}

type logsOutput struct {
	Lines     []logLine `json:"lines"`
	Truncated bool      `json:"truncated" jsonschema:"there are lines before the first; a larger tail, match or from_line has them"`
	NextLine  int       `json:"next_line,omitempty" jsonschema:"from_line of what follows, where there is more"`
}

func (o logsOutput) text() string {
	if len(o.Lines) == 0 {
		return "no lines"
	}
	var b strings.Builder
	if o.Truncated {
		b.WriteString("[... there are lines before; from_line reads from the beginning in parts, match looks for some ...]\n")
	}
	for _, l := range o.Lines {
		if l.Source == "system" {
			b.WriteString("[system] ")
		}
		b.WriteString(l.Line + "\n")
	}
	if o.NextLine > 0 {
		fmt.Fprintf(&b, "[... more: from_line %d ...]\n", o.NextLine)
	}
	return b.String()
}

func (s *Server) addLogs() {
	add(s, tool[logsInput, logsOutput]{
		name: "logs", title: "Read logs", effect: reads,
		about: "Read what an instance's command wrote, over restarts of the instance too, with AegisVM's own remarks marked [system] (why it ended, what network access was denied). " +
			"With exec_id it is the whole output of that exec. The last lines come unless from_line is given. It does not wake the instance.",
		refine: func(in *jsonschema.Schema) {
			zero, most := 0.0, float64(maxTail)
			in.Properties["tail"].Minimum, in.Properties["tail"].Maximum = &zero, &most
			in.Properties["from_line"].Minimum = &zero
			preset(in, "tail", strconv.Itoa(defaultTail))
		},
		do: s.logs,
	})
}

func (s *Server) logs(ctx context.Context, _ *call, in logsInput) (logsOutput, error) {
	p := page{from: in.FromLine, max: in.Tail}
	if in.Match != "" {
		var err error
		if p.match, err = regexp.Compile(in.Match); err != nil {
			return logsOutput{}, fault.Wrap(fault.Invalid, err, "match is no regular expression").WithHint("escape what is meant literally with \\")
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	q := client.LogQuery{Tail: -1, Since: in.Since, ExecID: in.ExecID, Execs: in.ExecID != ""}
	if p.from == 0 && p.match == nil {
		q.Tail = in.Tail + 1 // the first tells that there is more
	}
	for entry, err := range s.api.Logs(ctx, string(in.Name), q) {
		if err != nil {
			return logsOutput{}, err
		}
		if !p.add(entry) {
			break
		}
	}
	return p.result(), nil
}

// page takes the lines of a log and keeps those that are asked for, and for which there
// is room.
type page struct {
	match *regexp.Regexp
	from  int // number of the line to begin with; 0 is the end of the log
	max   int // lines

	n      int // lines seen
	bytes  int
	lines  []logLine
	before bool // there were lines before them, of those asked for
	more   bool // there are lines behind them
}

// add takes one line, and tells whether it wants more.
func (p *page) add(e api.LogEntry) bool {
	line := []byte(e.Line)
	if e.Bytes != nil {
		line = e.Bytes
	}
	if p.match != nil && !p.match.Match(line) {
		return true
	}
	p.n++
	if p.n < p.from {
		return true
	}
	text := readable(line)
	if len(text) > maxLogLine {
		text = fmt.Sprintf("%s[... %d bytes left out]", readable(endLine(line[:maxLogLine])), len(line)-maxLogLine)
	}
	if p.from > 0 && (len(p.lines) == p.max || p.bytes+len(text) > maxLogBytes && len(p.lines) > 0) {
		p.more = true
		return false
	}
	p.lines = append(p.lines, logLine{e.TS, e.Source, e.Stream, text})
	p.bytes += len(text)
	for len(p.lines) > p.max || p.bytes > maxLogBytes && len(p.lines) > 1 {
		p.bytes -= len(p.lines[0].Line)
		p.lines = p.lines[1:]
		p.before = true
	}
	return true
}

func (p *page) result() logsOutput {
	out := logsOutput{Lines: append([]logLine{}, p.lines...), Truncated: p.before}
	if p.more {
		out.NextLine = p.n
	}
	return out
}
