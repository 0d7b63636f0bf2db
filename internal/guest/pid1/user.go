//go:build linux

package pid1

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// account is who a process runs as.
type account struct {
	name string
	uid  uint32
	gid  uint32
	home string
	more []uint32 // supplementary groups
}

func (a account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.more}
}

// lookupUser finds NAME or UID, each with an optional :GROUP or :GID, in the files
// of the image. Numbers need no files.
func lookupUser(spec string) (account, error) {
	if spec == "" {
		spec = "0"
	}
	user, group, withGroup := strings.Cut(spec, ":")
	a, err := findUser(user)
	if err != nil {
		return a, err
	}
	if a.name != "" {
		a.more = memberships(a.name, a.gid)
	}
	if withGroup {
		if a.gid, err = findGroup(group); err != nil {
			return a, err
		}
		a.more = nil
	}
	return a, nil
}

func notFound(format string, args ...any) error {
	return &guestproto.Error{Code: guestproto.CodeNotFound, Msg: fmt.Sprintf(format, args...)}
}

func findUser(user string) (account, error) {
	number, isNumber := parseID(user)
	found := account{}
	ok := scan("/etc/passwd", 7, func(f []string) bool {
		uid, goodUID := parseID(f[2])
		gid, goodGID := parseID(f[3])
		if !goodUID || !goodGID || f[0] != user && (!isNumber || uid != number) {
			return false
		}
		found = account{name: f[0], uid: uid, gid: gid, home: f[5]}
		return true
	})
	switch {
	case ok:
		return found, nil
	case user == "root" || isNumber && number == 0:
		return account{name: "root", home: "/root"}, nil
	case isNumber:
		return account{uid: number, home: "/"}, nil
	}
	return account{}, notFound("no user %q in the VM", user)
}

func findGroup(group string) (uint32, error) {
	var gid uint32
	ok := scan("/etc/group", 4, func(f []string) bool {
		n, good := parseID(f[2])
		if !good || f[0] != group {
			return false
		}
		gid = n
		return true
	})
	if ok {
		return gid, nil
	}
	if n, isNumber := parseID(group); isNumber {
		return n, nil
	}
	return 0, notFound("no group %q in the VM", group)
}

// memberships returns the groups that list name, besides its own.
func memberships(name string, own uint32) []uint32 {
	more := []uint32{own}
	scan("/etc/group", 4, func(f []string) bool {
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, good := parseID(f[2]); good && member == name && gid != own {
				more = append(more, gid)
			}
		}
		return false
	})
	return more
}

// scan calls take for the lines of a file of fields, until it returns true.
func scan(path string, fields int, take func([]string) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // an image without users
	}
	defer f.Close() //nolint:errcheck // read only
	return scanFrom(f, fields, take)
}

func scanFrom(r io.Reader, fields int, take func([]string) bool) bool {
	for in := bufio.NewScanner(r); in.Scan(); {
		if parts := strings.Split(in.Text(), ":"); len(parts) >= fields && take(parts) {
			return true
		}
	}
	return false
}

func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n < math.MaxUint32
}
