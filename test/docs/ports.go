package docs

import (
	"net"
	"regexp"
	"strconv"
	"testing"
)

// Ports are the ports that pages choose on the reader's host, and those of this host that
// stand for them.
type Ports map[string]string

// readers are the ports of pages; the last is the HTTP router's.
var readers = []string{"8080", "8081", "8099"}

// FreePorts finds ports of this host for those of pages.
func FreePorts(t *testing.T) Ports {
	t.Helper()
	ports := Ports{}
	for _, p := range readers {
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }() // nobody came; until then it is not given out twice
		ports[p] = strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// Router is the variable that puts the HTTP router on its port.
func (p Ports) Router() string { return "AEGIS_ROUTER=127.0.0.1:" + p["8099"] }

// onThisHost puts ports of this host in the place of those of the page.
func (p Ports) onThisHost(text string) string {
	for theirs, ours := range p {
		text = number(theirs).ReplaceAllString(text, ours)
	}
	return text
}

// onThePage is the way back.
func (p Ports) onThePage(text string) string {
	for theirs, ours := range p {
		text = number(ours).ReplaceAllString(text, theirs)
	}
	return text
}

func number(n string) *regexp.Regexp { return regexp.MustCompile(`\b` + n + `\b`) }
