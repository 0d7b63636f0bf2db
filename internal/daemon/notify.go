package daemon

import (
	"encoding/json"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/api"
)

// notifier tells the program that started the daemon that it serves, or why not.
// Without such a program it does nothing.
type notifier struct{ f *os.File }

// inheritNotifier takes the descriptor that api.ReadyFD names. Neither descriptor nor
// variable is passed on to VMMs.
func inheritNotifier() *notifier {
	fd, err := strconv.Atoi(os.Getenv(api.ReadyFD))
	_ = os.Unsetenv(api.ReadyFD) // cannot fail on this name
	if err != nil || fd <= 2 {
		return &notifier{}
	}
	unix.CloseOnExec(fd)
	return &notifier{os.NewFile(uintptr(fd), "ready")}
}

func (n *notifier) ready() { n.tell(api.Ready{PID: os.Getpid()}) }

func (n *notifier) failed(err error) {
	e := api.ErrorOf(err)
	n.tell(api.Ready{PID: os.Getpid(), Error: &e})
}

func (n *notifier) tell(r api.Ready) {
	if n.f == nil {
		return
	}
	b, _ := json.Marshal(r)           // of strings and numbers; cannot fail
	_, _ = n.f.Write(append(b, '\n')) // one who no longer waits misses nothing
	_ = n.f.Close()                   // nothing is buffered
	n.f = nil
}
