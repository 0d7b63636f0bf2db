package instance

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

func (a *actor) hello() guestproto.Hello {
	h := guestproto.Hello{
		MinVersion: guestproto.MinVersion,
		Version:    guestproto.Version,
		Owned:      []guestproto.Owned{},
		Identity:   newIdentity(a.id, a.spec.Handle),
	}
	if a.spec.Ephemeral {
		h.LonelyOffMS = lonelyOff.Milliseconds()
	}
	return h
}

// lonelyOff is how long an ephemeral guest goes on without a daemon: nobody comes
// back to it. A link that only broke is made again within a second.
const lonelyOff = 15 * time.Second

func (a *actor) program(env []string) guestproto.Spawn {
	spawn := guestproto.Spawn{
		ID:      guestproto.ProgramID,
		Command: a.spec.Command,
		Env:     a.environ(env),
		Workdir: a.spec.Workdir,
		User:    a.spec.User,
		TTY:     a.spec.TTY,
		Stdin:   a.spec.Stdin,
	}
	if !a.spec.Ephemeral {
		spawn.Ring = programRing
	}
	return spawn
}

// programRing is how much output the guest keeps on its disk while no daemon is
// there to store it. When that is full too, the program waits.
const programRing = 64 << 20

// envList returns an environment as KEY=VALUE in a stable order.
func envList(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

func newIdentity(id ID, handle string) *guestproto.Identity {
	machine, boot := guestproto.NewNonce(), guestproto.NewNonce()
	boot[6], boot[8] = boot[6]&0x0f|0x40, boot[8]&0x3f|0x80 // RFC 9562, version 4
	b := hex.EncodeToString(boot[:])
	return &guestproto.Identity{
		Instance:  string(id),
		Hostname:  strings.ReplaceAll(handle, "_", "-"),
		MachineID: hex.EncodeToString(machine[:]),
		BootID:    strings.Join([]string{b[:8], b[8:12], b[12:16], b[16:20], b[20:]}, "-"),
	}
}
