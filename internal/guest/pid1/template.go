//go:build linux

package pid1

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Prepare implements server.System. What a template has done, its clones need not do. Its
// files of /etc are placeholders, which lie on the disk already when a clone writes them.
func (m *machine) Prepare(ctx context.Context, disk int64) error {
	if !m.template {
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: "this machine was not booted to be a template"}
	}
	if err := m.common.wait(ctx); err != nil {
		return err
	}
	m.network.Wait()
	if disk == 0 {
		return nil
	}
	if err := m.Ready(ctx, disk); err != nil {
		return err
	}
	nobody := guestproto.Identity{Hostname: "template", MachineID: strings.Repeat("0", 32), BootID: "00000000-0000-4000-8000-000000000000"}
	if err := m.Identify(nobody); err != nil {
		return err
	}
	m.identity.Lock()
	m.identified = false
	m.identity.Unlock()
	warm()
	warmTools()
	warmWords()
	unix.Sync() // or each clone writes it
	return nil
}

// warmed is what nearly every program needs, in the layouts there are.
var warmed = []string{
	"/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/etc/nsswitch.conf",
	"/bin/sh", "/usr/bin/env", "/bin/true",
	"/lib*/ld-*.so*", "/lib/*/ld-*.so*", "/lib*/libc.so*", "/lib/*/libc.so*", "/usr/lib/libc.so*",
}

// warm reads files of the image, so that clones find them in memory, which they share.
// Nothing of the image is run. What is not there is not needed.
func warm() {
	for _, pattern := range warmed {
		paths, _ := filepath.Glob(pattern) // the patterns are good
		for _, path := range paths {
			if f, err := os.Open(path); err == nil {
				_, _ = io.Copy(io.Discard, io.LimitReader(f, maxWarm))
				_ = f.Close() // only read
			}
		}
	}
}

// warmWords has the messages that every start needs looked at once: what package json
// finds out about a type it remembers.
func warmWords() {
	for _, v := range []any{
		&guestproto.Hello{Rekey: &guestproto.Magic{}, Identity: &guestproto.Identity{}, Thaw: &guestproto.Thaw{}},
		&guestproto.Welcome{}, &guestproto.Mount{Mounts: []guestproto.MountPoint{{}}}, &guestproto.Spawn{}, &guestproto.Spawned{},
		&guestproto.StreamHeader{}, &guestproto.StreamReply{}, &guestproto.Thaw{}, &guestproto.Message{},
	} {
		if b, err := json.Marshal(v); err == nil {
			_ = json.Unmarshal(b, v) // it is what was written
		}
	}
}

// maxWarm bounds what is read of a file that an image has under a name like these.
const maxWarm = 8 << 20
