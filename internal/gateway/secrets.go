package gateway

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// SecretsFD is the variable that names the descriptor over which the daemon tells the
// values of the secrets that gateway.json names. Its end is the daemon's.
const SecretsFD = "AEGIS_SECRETS_FD" //nolint:gosec // a name

// errDaemonGone ends a gateway whose daemon has ended.
var errDaemonGone = errors.New("the daemon has ended")

// secretsLine is what the daemon writes at every change: all values that are named.
type secretsLine struct {
	Secrets map[string]string `json:"secrets"`
}

// stored is what the daemon has told.
type stored struct {
	changed chan<- struct{}
	first   chan struct{} // closed when it has told something

	mu     sync.Mutex
	values map[string]string
	told   bool
}

func newStored(changed chan<- struct{}) *stored {
	return &stored{changed: changed, first: make(chan struct{})}
}

func (s *stored) get() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.values)
}

// read takes what the daemon tells until it ends, or closes r.
func (s *stored) read(log *slog.Logger, r io.Reader) {
	for in := bufio.NewReader(r); ; {
		b, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var line secretsLine
		if json.Unmarshal(b, &line) != nil {
			log.Error("a line of secrets is not understood") // its text is nobody's business
			continue
		}
		s.mu.Lock()
		s.values = line.Secrets
		if !s.told {
			s.told = true
			close(s.first)
		}
		s.mu.Unlock()
		tell(s.changed)
	}
}

// openSecrets returns the descriptor that text names, so that Close ends a Read.
func openSecrets(text string) (*os.File, error) {
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fault.New(fault.Invalid, "%s is %q, and names no descriptor", SecretsFD, text).
			WithHint("the daemon sets it; unset it to run a gateway by hand")
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "descriptor %d of %s", fd, SecretsFD).
			WithHint("the daemon opens it; unset %s to run a gateway by hand", SecretsFD)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "secrets"), nil
}
