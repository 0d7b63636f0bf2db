package instance

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/capability"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/size"
)

// ID names an instance for ever. IDs sort by their time of creation.
type ID string

// NewID returns "inst-", the milliseconds since 1970 in hex, and 40 random bits.
func NewID() ID {
	var r [5]byte
	_, _ = rand.Read(r[:]) // never fails, see crypto/rand
	return ID(fmt.Sprintf("inst-%011x%s", time.Now().UnixMilli(), hex.EncodeToString(r[:])))
}

// Spec is what a user asked for. It does not change while the instance runs.
type Spec struct {
	Handle    string // unique name, or "" for one made from the ID
	Command   []string
	Env       map[string]string
	Secrets   []string // names of those in the environment, or AllSecrets; an actor's are in its record
	Workdir   string   // "" is the image's, else /
	User      string   // name or uid[:group or gid]; "" is the image's, else root
	Image     string   // as it was asked for; "" is the default image
	Base      Base     `json:",omitzero"` // what that named when the instance was made
	Pull      Pull     `json:"-"`         // of the making
	Memory    size.Bytes
	VCPUs     int
	Disk      size.Bytes
	Expose    []Expose       // ports that are open on the host
	Egress    Egress         `json:",omitzero"` // what the guest may reach
	Folders   Folders        `json:",omitzero"` // of the host, in which it works
	Ephemeral bool           // deleted when its program ends or its client goes
	Stdin     bool           // the program reads its standard input from the client
	TTY       *frame.Winsize // the program gets a terminal of that size
	// PauseAfter is how long nothing must hold the instance before it is paused; 0 is
	// never.
	PauseAfter time.Duration
	// StopAfter is how long an instance must have been paused before its memory goes to
	// disk; 0 is never.
	StopAfter time.Duration
	// Parent is the instance that started it over the Guest API, and with which it ends; "" is
	// none.
	Parent ID  `json:",omitempty"`
	Kit    Kit `json:",omitzero"` // what it was made of
	// Capabilities is what its programs may ask of the host; nil is what its kit says, else
	// nothing.
	Capabilities *api.Capabilities `json:",omitempty"`
	// IdlePolicy says what else than holds keeps the instance awake.
	IdlePolicy IdlePolicy `json:",omitempty"`
}

// Defaults and limits of a Spec.
const (
	DefaultMemory = 512 * size.MiB
	MinMemory     = 128 * size.MiB
	DefaultDisk   = 8 * size.GiB
	MinDisk       = 8 * size.GiB
	// MaxDisk is what an emulated guest on a busy host grows a disk to within its boot;
	// the time grows faster than the size.
	MaxDisk  = 2 * size.TiB
	MaxVCPUs = 64
	// MaxCommand bounds command and environment together: they travel in one
	// message of the guest protocol.
	MaxCommand = 512 * size.KiB
)

var handleForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// MaxHandle is the longest handle: it is also the guest's hostname.
const MaxHandle = 63

// Defaults is what a user of this host wants where a Spec says nothing. A zero field
// is AegisVM's own default.
type Defaults struct {
	Memory size.Bytes
	VCPUs  int
	Disk   size.Bytes
}

// Rights returns the Spec's capabilities; none is nothing that is allowed.
func (s *Spec) Rights() api.Capabilities {
	if s.Capabilities == nil {
		return api.Capabilities{}
	}
	return *s.Capabilities
}

// Complete fills the defaults and says what is wrong with the rest.
func (s *Spec) Complete(d Defaults) error {
	s.Memory = cmp.Or(s.Memory, d.Memory, DefaultMemory)
	s.VCPUs = cmp.Or(s.VCPUs, d.VCPUs, 1)
	s.Disk = cmp.Or(s.Disk, d.Disk, DefaultDisk)
	switch {
	case len(s.Command) == 0 || s.Command[0] == "":
		return fault.New(fault.Invalid, "no command to run").WithHint("put it behind --, as in: aegis run -- uname -a")
	case s.Handle != "" && (!handleForm.MatchString(s.Handle) || len(s.Handle) > MaxHandle):
		return fault.New(fault.Invalid, "bad name %q", s.Handle).
			WithHint("a name has letters, digits, '.', '_' and '-', begins with a letter or digit, and is at most %d long", MaxHandle)
	case s.Memory < MinMemory:
		return fault.New(fault.Invalid, "%v of memory is too little", s.Memory).WithHint("give it --memory %dM or more", MinMemory.MiB())
	case s.VCPUs < 0 || s.VCPUs > MaxVCPUs:
		return fault.New(fault.Invalid, "%d vCPUs cannot be had", s.VCPUs).WithHint("give it --cpus 1 to %d", MaxVCPUs)
	case s.Disk < MinDisk:
		return fault.New(fault.Invalid, "a disk of %v is too small", s.Disk).WithHint("give it --disk %dG or more; it takes only what is written", MinDisk/size.GiB)
	case s.Disk > MaxDisk:
		return fault.New(fault.Invalid, "a disk of %v is too large", s.Disk).WithHint("give it --disk %dT or less", MaxDisk/size.TiB)
	case s.bulk() > MaxCommand:
		return fault.New(fault.Invalid, "command and environment of %v are too large", s.bulk()).
			WithHint("keep them under %v; pass large data through stdin or a file", MaxCommand)
	}
	if err := completeExposes(s.Expose); err != nil {
		return err
	}
	for k := range s.Env {
		if !validEnvName(k) {
			return fault.New(fault.Invalid, "bad environment variable name %q", k).WithHint("a name is not empty and has no '=' or NUL")
		}
	}
	if err := capability.Check(s.Rights()); err != nil {
		return err
	}
	if err := s.completeIdle(); err != nil {
		return err
	}
	return s.completeSecrets()
}

func (s *Spec) bulk() size.Bytes {
	n := 0
	for _, c := range s.Command {
		n += len(c) + 1
	}
	for k, v := range s.Env {
		n += len(k) + len(v) + 2
	}
	return size.Bytes(n)
}

func validEnvName(k string) bool {
	if k == "" {
		return false
	}
	for _, c := range k {
		if c == '=' || c == 0 {
			return false
		}
	}
	return true
}
