package nfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// The procedures of NFS version 3.
const (
	procNull = iota
	procGetattr
	procSetattr
	procLookup
	procAccess
	procReadlink
	procRead
	procWrite
	procCreate
	procMkdir
	procSymlink
	procMknod
	procRemove
	procRmdir
	procRename
	procLink
	procReaddir
	procReaddirplus
	procFsstat
	procFsinfo
	procPathconf
	procCommit
	procedures
)

// status is nfsstat3. As an error it is what a request ends with.
type status uint32

// statusOK is the status of what went well, and no error.
const statusOK = 0

// The statuses that are used.
const (
	errPerm        status = 1
	errNoEnt       status = 2
	errIO          status = 5
	errAccess      status = 13
	errExist       status = 17
	errXDev        status = 18
	errNoDev       status = 19
	errNotDir      status = 20
	errIsDir       status = 21
	errInval       status = 22
	errFBig        status = 27
	errNoSpc       status = 28
	errROFS        status = 30
	errMLink       status = 31
	errNameTooLong status = 63
	errNotEmpty    status = 66
	errDQuot       status = 69
	errStale       status = 70
	errBadHandle   status = 10001
	errNotSync     status = 10002
	errNotSupp     status = 10004
	errTooSmall    status = 10005
	errBadType     status = 10007
	errJukebox     status = 10008 // try again later
)

// Error implements error.
func (s status) Error() string { return statusNames[s] }

var statusNames = map[status]string{
	statusOK: "OK", errPerm: "not owner", errNoEnt: "no such file", errIO: "I/O error", errAccess: "permission denied",
	errExist: "file exists", errXDev: "cross-device link", errNoDev: "no such device", errNotDir: "not a folder",
	errIsDir: "is a folder", errInval: "invalid argument", errFBig: "file too large", errNoSpc: "no space",
	errROFS: "read-only", errMLink: "too many links", errNameTooLong: "name too long", errNotEmpty: "folder not empty",
	errDQuot: "over quota", errStale: "stale handle", errBadHandle: "bad handle", errNotSync: "guard does not match",
	errNotSupp: "not supported", errTooSmall: "buffer too small",
	errBadType: "bad type", errJukebox: "try again later",
}

// errnos is the table from what the host says to what the guest is told. Anything
// else is an I/O error.
var errnos = map[unix.Errno]status{
	unix.EPERM: errPerm, unix.ENOENT: errNoEnt, unix.EIO: errIO, unix.ENXIO: errIO, unix.EACCES: errAccess,
	unix.EEXIST: errExist, unix.EXDEV: errXDev, unix.ENODEV: errNoDev, unix.ENOTDIR: errNotDir,
	unix.EISDIR: errIsDir, unix.EINVAL: errInval, unix.EFBIG: errFBig, unix.ENOSPC: errNoSpc, unix.EROFS: errROFS,
	unix.EMLINK: errMLink, unix.ENAMETOOLONG: errNameTooLong, unix.ENOTEMPTY: errNotEmpty, unix.EDQUOT: errDQuot,
	unix.ESTALE: errStale, unix.ENOTSUP: errNotSupp, unix.ETXTBSY: errAccess, unix.ELOOP: errInval,
	unix.EMFILE: errJukebox, unix.ENFILE: errJukebox, unix.ENOMEM: errJukebox,
}

// statusOf says how a request ended.
func statusOf(err error) status {
	if err == nil {
		return statusOK
	}
	if s, ok := errors.AsType[status](err); ok {
		return s
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		if s, ok := errnos[errno]; ok {
			return s
		}
	}
	return errIO
}

// maxName is the longest name in a folder, in bytes.
const maxName = 255

// checkName refuses what is not a plain name of something in a folder.
func checkName(b []byte) (string, error) {
	name := string(b)
	switch {
	case len(b) > maxName:
		return "", errNameTooLong
	case name == "" || name == "." || name == "..":
		return "", errInval
	}
	for _, c := range b {
		if c == '/' || c == 0 {
			return "", errInval
		}
	}
	return name, nil
}
