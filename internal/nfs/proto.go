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

// The statuses that are used.
const (
	statusOK          status = 0
	statusPerm        status = 1
	statusNoEnt       status = 2
	statusIO          status = 5
	statusAccess      status = 13
	statusExist       status = 17
	statusXDev        status = 18
	statusNoDev       status = 19
	statusNotDir      status = 20
	statusIsDir       status = 21
	statusInval       status = 22
	statusFBig        status = 27
	statusNoSpc       status = 28
	statusROFS        status = 30
	statusMLink       status = 31
	statusNameTooLong status = 63
	statusNotEmpty    status = 66
	statusDQuot       status = 69
	statusStale       status = 70
	statusBadHandle   status = 10001
	statusNotSync     status = 10002
	statusBadCookie   status = 10003
	statusNotSupp     status = 10004
	statusTooSmall    status = 10005
	statusFault       status = 10006
	statusBadType     status = 10007
	statusJukebox     status = 10008 // try again later
)

// Error implements error.
func (s status) Error() string { return statusNames[s] }

var statusNames = map[status]string{
	statusOK: "OK", statusPerm: "not owner", statusNoEnt: "no such file", statusIO: "I/O error", statusAccess: "permission denied",
	statusExist: "file exists", statusXDev: "cross-device link", statusNoDev: "no such device", statusNotDir: "not a folder",
	statusIsDir: "is a folder", statusInval: "invalid argument", statusFBig: "file too large", statusNoSpc: "no space",
	statusROFS: "read-only", statusMLink: "too many links", statusNameTooLong: "name too long", statusNotEmpty: "folder not empty",
	statusDQuot: "over quota", statusStale: "stale handle", statusBadHandle: "bad handle", statusNotSync: "guard does not match",
	statusBadCookie: "bad cookie", statusNotSupp: "not supported", statusTooSmall: "buffer too small", statusFault: "server fault",
	statusBadType: "bad type", statusJukebox: "try again later",
}

// errnos is the table from what the host says to what the guest is told. Anything
// else is an I/O error.
var errnos = map[unix.Errno]status{
	unix.EPERM: statusPerm, unix.ENOENT: statusNoEnt, unix.EIO: statusIO, unix.ENXIO: statusIO, unix.EACCES: statusAccess,
	unix.EEXIST: statusExist, unix.EXDEV: statusXDev, unix.ENODEV: statusNoDev, unix.ENOTDIR: statusNotDir,
	unix.EISDIR: statusIsDir, unix.EINVAL: statusInval, unix.EFBIG: statusFBig, unix.ENOSPC: statusNoSpc, unix.EROFS: statusROFS,
	unix.EMLINK: statusMLink, unix.ENAMETOOLONG: statusNameTooLong, unix.ENOTEMPTY: statusNotEmpty, unix.EDQUOT: statusDQuot,
	unix.ESTALE: statusStale, unix.ENOTSUP: statusNotSupp, unix.ETXTBSY: statusAccess, unix.ELOOP: statusInval,
	unix.EMFILE: statusJukebox, unix.ENFILE: statusJukebox, unix.ENOMEM: statusJukebox,
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
	return statusIO
}

// maxName is the longest name in a folder, in bytes.
const maxName = 255

// checkName refuses what is not a plain name of something in a folder.
func checkName(b []byte) (string, error) {
	name := string(b)
	switch {
	case len(b) > maxName:
		return "", statusNameTooLong
	case name == "" || name == "." || name == "..":
		return "", statusInval
	}
	for _, c := range b {
		if c == '/' || c == 0 {
			return "", statusInval
		}
	}
	return name, nil
}
