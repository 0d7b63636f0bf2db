package agent

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/agent/session"
	"github.com/xfeldman/aegisvm/internal/agent/settings"
)

const defaultPrompt = `You are an agent with a computer of your own: a small Linux virtual machine in which you are root and alone.
Do what the user asks by doing it here: look, run commands, write files and programs, try them, and say what came of it. Prefer to find out over asking back.
Everything in the workspace stays; the rest of the machine may be made anew. The machine sleeps when you have nothing to do, and wakes with the next message.
Answer shortly and plainly. Say what you have not done or are not sure of.`

// listed is how many names of the workspace the model is shown.
const listed = 40

// programs are what a model likes to know of before it writes something.
var programs = []string{"python3", "node", "go", "git", "gcc", "curl", "jq", "rg", "uv", "npm", "docker"}

// prompt returns the system prompt: what the user says, and where the model is. It is the
// same all day long where nothing changes, so that providers can keep it.
func (a *Agent) prompt(s *settings.Settings, taken *session.Taken, notes []string) string {
	var b strings.Builder
	b.WriteString(cmp.Or(s.SystemPrompt, defaultPrompt))
	b.WriteString("\n\n# Where you are\n")
	fmt.Fprintf(&b, "- %s on %s, %d CPUs; host name %s\n", osName(), runtime.GOARCH, runtime.NumCPU(), hostname())
	fmt.Fprintf(&b, "- workspace: %s%s\n", a.conf.Workspace, workspaceList(a.conf.Workspace))
	if found := installed(); found != "" {
		fmt.Fprintf(&b, "- installed: %s\n", found)
	}
	fmt.Fprintf(&b, "- today: %s\n", time.Now().Format("Monday, 2006-01-02 (MST)"))
	if u := taken.User; u != nil && (u.Name != "" || u.Username != "") {
		fmt.Fprintf(&b, "- you speak with: %s\n", strings.TrimSpace(oneLine(u.Name)+" "+oneLine(u.Username)))
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	if s.Remembers() {
		b.WriteString(a.remembered(s.Injected()))
	}
	return b.String()
}

// remembered returns the newest notes.
func (a *Agent) remembered(limit int) string {
	all, err := a.memory.All()
	if err != nil {
		return fmt.Sprintf("\n# What you remember\n(%v)\n", err)
	}
	if len(all) == 0 || limit == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n# What you remember\n")
	if left := len(all) - limit; left > 0 {
		fmt.Fprintf(&b, "(%d older notes: use memory_search)\n", left)
		all = all[left:]
	}
	for _, n := range all {
		fmt.Fprintf(&b, "- %s: %s\n", n.ID, oneLine(n.Text))
	}
	return b.String()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func osName() string {
	data, err := os.ReadFile("/etc/os-release")
	if err == nil {
		for l := range strings.SplitSeq(string(data), "\n") {
			if v, ok := strings.CutPrefix(l, "PRETTY_NAME="); ok {
				return strings.Trim(v, `"`)
			}
		}
	}
	return runtime.GOOS
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

func workspaceList(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return " (empty)"
	}
	var names []string
	for _, e := range entries {
		if len(names) >= listed {
			names = append(names, fmt.Sprintf("... %d more", len(entries)-listed))
			break
		}
		name := e.Name()
		if strings.HasPrefix(name, ".") || name == "sessions" {
			continue
		}
		if e.IsDir() {
			name += "/"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return " (empty)"
	}
	return ", with " + strings.Join(names, " ")
}

func installed() string {
	var found []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			found = append(found, p)
		}
	}
	return strings.Join(found, ", ")
}
