package kernel

import "golang.org/x/sys/unix"

// hostRelease returns what uname -r says.
func hostRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
