package vault

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// restore is what to do about a master key that is not the right one.
const restore = "put the right %s back from a backup; without it the values are lost: " +
	"delete them (aegis secret list; aegis secret delete NAME), then set them again"

// errOtherKey is wrapped by the errors of rows whose key is not at hand.
var errOtherKey = errors.New("no master key here opens it")

func otherKeyFault(name, path string) error {
	return fault.Wrap(fault.Unavailable, errOtherKey, "the secret %s was sealed with another master key", name).By(fault.Host).
		WithHint(restore, path)
}

func lostKeyFault(n int, path string) error {
	return fault.New(fault.Unavailable, "the master key %s is missing, and %d stored secrets need it", path, n).By(fault.Host).
		WithHint(restore, "file")
}

func damagedFault(name string, err error) error {
	return fault.Wrap(fault.Unavailable, err, "the stored value of the secret %s is damaged", name).By(fault.Host).
		WithHint("set it again: aegis secret set %s", name)
}

func modeFault(path string, mode fs.FileMode) error {
	return fault.New(fault.Unavailable, "the master key %s can be read by others: its mode is %04o", path, mode).By(fault.Host).
		WithHint("if nobody has read it: chmod 600 %s; then, to be sure: aegis secret rotate", path)
}

func shapeFault(path, what string) error {
	return fault.New(fault.Unavailable, "the master key %s %s", path, what).By(fault.Host).WithHint(restore, "file")
}

func unreadableFault(path string, err error) error {
	return fault.Wrap(fault.Unavailable, err, "the master key cannot be read").By(fault.Host).
		WithHint("it belongs to the user who runs aegisd, with mode 600: see ls -l %s", path)
}

func unwritableFault(path string, err error) error {
	return fault.Wrap(fault.Unavailable, err, "the master key %s cannot be written", path).By(fault.Host).
		WithHint("is the disk full, or the folder not yours? see: aegis doctor")
}

// missingFault names the secrets that somebody asks for and nobody has stored.
func missingFault(names []string) error {
	if len(names) == 1 {
		return fault.New(fault.NotFound, "there is no secret %s", names[0]).WithHint("aegis secret set %s", names[0])
	}
	return fault.New(fault.NotFound, "there are no secrets %s", strings.Join(names, ", ")).
		WithHint("aegis secret set %s, and so on; see: aegis secret list", names[0])
}
