package guestproto

import (
	"slices"
	"strings"
)

// DiskDevice returns the device of a disk that a kernel command line names with
// DisksArg: virtio disks get their letters in the order in which the VMM has them.
func DiskDevice(commandLine, name string) (string, bool) {
	for arg := range strings.FieldsSeq(commandLine) {
		names, ok := strings.CutPrefix(arg, DisksArg+"=")
		if !ok {
			continue
		}
		i := slices.Index(strings.Split(names, ","), name)
		if i < 0 || i >= maxLetters {
			return "", false
		}
		return "/dev/vd" + string(rune('a'+i)), true
	}
	return "", false
}

// maxLetters is how many disks have names of one letter; more are of no use here.
const maxLetters = 26
