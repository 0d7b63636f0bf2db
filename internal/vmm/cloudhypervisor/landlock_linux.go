package cloudhypervisor

import "golang.org/x/sys/unix"

// landlockNeeded is the version of Landlock whose rules the VMM insists on: Linux 6.2.
const landlockNeeded = 3

// landlockVersion returns the version of Landlock in this kernel, 0 for none.
func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}
