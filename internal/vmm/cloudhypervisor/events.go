package cloudhypervisor

import (
	"bufio"
	"io"
	"regexp"
	"sync"
)

// events reads what the VMM tells of itself: JSON objects over several lines each. A
// reader that comes later, or missed some, finds its way back at the next line.
type events struct {
	mu       sync.Mutex
	seen     map[string]bool // "vm/rebooting"
	rebooted func()          // is called once, when the VM starts again by itself
}

// The events that matter.
const (
	eventReboot = "vm/rebooting"
	eventEnd    = "vmm/shutdown"
)

var eventLine = regexp.MustCompile(`"(source|event)": *"([a-z-]{1,40})"`)

// maxEvent bounds a line.
const maxEvent = 64 << 10

// read reads until the pipe ends.
func (e *events) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	source := ""
	for lines.Scan() {
		for _, m := range eventLine.FindAllStringSubmatch(lines.Text(), -1) {
			if m[1] == "source" {
				source = m[2]
				continue
			}
			e.note(source + "/" + m[2])
		}
	}
	_, _ = io.Copy(io.Discard, r) // behind a line that is too long: the VMM must not wait
}

func (e *events) note(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = map[string]bool{}
	}
	first := !e.seen[name]
	switch name {
	case eventReboot, eventEnd:
		e.seen[name] = true
	default:
		return
	}
	if name == eventReboot && first {
		e.rebooted()
	}
}

// has tells whether something was told of.
func (e *events) has(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[name]
}
