package nfs

// fileType is ftype3.
type fileType uint32

const (
	typeRegular fileType = 1 + iota
	typeFolder
	typeBlock
	typeChar
	typeSymlink
	typeSocket
	typeFIFO
)

// modeTypes is the table from S_IFMT to types.
var modeTypes = map[uint32]fileType{
	0o100000: typeRegular, 0o040000: typeFolder, 0o060000: typeBlock, 0o020000: typeChar,
	0o120000: typeSymlink, 0o140000: typeSocket, 0o010000: typeFIFO,
}

// The bits of a mode.
const (
	bitsPerm   = 0o0777
	bitSticky  = 0o1000
	bitsSetID  = 0o6000
	bitSetGID  = 0o2000
	bitsAll    = 0o7777
	bitsFormat = 0o170000
)

// moment is a time as the host's file system keeps it.
type moment struct {
	sec  int64
	nsec uint32
}

// ident is what a handle says of an inode, and what tells it from all others that
// were or will be in its export.
type ident struct {
	dev uint64 // 0 is the device of the export's root
	ino uint64
	gen uint64 // time of birth in nanoseconds; 0 where the file system has none
}

// stat is what the host says of a file.
type stat struct {
	id       ident
	kind     fileType
	mode     uint32 // of the twelve bits
	links    uint32
	uid, gid uint32
	size     uint64
	used     uint64 // bytes on the disk
	rdev     [2]uint32
	atime    moment
	mtime    moment
	ctime    moment
	crossing bool // the root of another file system: never entered
}

// entry is one name in a folder, as the host lists it.
type entry struct {
	name string
	ino  uint64   // 0 where the host does not say
	kind fileType // 0 where the host does not say
}
