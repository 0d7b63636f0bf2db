package rootfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// The on-disk format, from fs/erofs/erofs_fs.h. All numbers are little-endian.
//
// An image here is: the superblock's block, the data of all files in the order
// they came, the whole blocks of directories, then the inodes. An inode is named
// by its nid, its distance from the start of the inodes in units of 32 bytes. The
// last, partial block of a directory and the target of a symbolic link stand
// right behind their inode ("inline") if they fit into its block.
const (
	blockBits = 12
	blockSize = 1 << blockBits
	maxBlocks = 1<<32 - 1<<20 // leaves room for directories and inodes

	superOffset = 1024
	superMagic  = 0xe0f5e1e2
	superSize   = 128

	featureChecksum = 1 // the superblock's checksum is valid
	featureMtime    = 2 // the inodes' times are times of modification

	slotSize   = 32
	inodeSize  = 64 // the extended form: 32-bit owners, time, size over 4 GB
	direntSize = 12

	formatExtended = 1
	layoutPlain    = 0 << 1
	layoutInline   = 2 << 1

	xattrHeaderSize = 12
	xattrEntrySize  = 4
)

// placement is where an inode's parts go.
type placement struct {
	number uint32 // counts the inodes, from 1
	pos    uint64 // of the inode, from the start of the inodes
	xattrs []byte // encoded, or nil
	names  []string
	inline int // bytes of the tail that stand behind the inode
}

func (p *placement) nid() uint64 { return p.pos / slotSize }

// Finish writes directories, inodes and superblock. The file is complete, but not
// synced, when it returns.
func (b *Builder) Finish() error {
	order, inodes, err := b.layout()
	if err != nil {
		return err
	}
	for _, n := range order {
		own := n.ownData()
		own = own[:len(own)-n.place.inline]
		if _, err := b.w.Write(own); err != nil {
			return err
		}
		if err := b.pad(int64(len(own))); err != nil {
			return err
		}
	}
	sum := sha256.New()
	pos := uint64(0)
	for _, n := range order {
		enc := n.encode()
		gap := make([]byte, n.place.pos-pos)
		for _, p := range [][]byte{gap, enc} {
			_, _ = sum.Write(p) // never fails
			if _, err := b.w.Write(p); err != nil {
				return err
			}
		}
		pos = n.place.pos + uint64(len(enc))
	}
	if err := b.pad(int64(pos)); err != nil {
		return err
	}
	if err := b.w.finish(); err != nil {
		return err
	}
	b.reclaim()
	start := b.next
	_, err = b.f.WriteAt(superblock(uint64(len(order)), start, start+uint32(inodes), [16]byte(sum.Sum(nil)[:16])), 0) //nolint:gosec // bounded by layout
	return err
}

// layout decides where everything goes and returns the inodes in order of
// position, and the number of their blocks. b.next is their first block then.
func (b *Builder) layout() (order []*node, blocks uint64, err error) {
	seen := map[*node]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		order = append(order, n)
		if !n.isDir() {
			return
		}
		n.place.names = n.sortedNames()
		for _, name := range n.place.names {
			if c := n.children[name]; c != nil && name != "." && name != ".." {
				walk(c)
			}
		}
	}
	walk(b.tree.root) // the root comes first: its nid has only 16 bits

	pos := uint64(0)
	for i, n := range order {
		p := &n.place
		p.number = uint32(i + 1)
		p.xattrs = encodeXattrs(n.xattrs)
		tail := n.ownSize() % blockSize
		pos = position(pos, len(p.xattrs), tail)
		p.pos = pos
		head := inodeSize + len(p.xattrs)
		if tail > 0 && (pos+uint64(head))%blockSize+uint64(tail) <= blockSize {
			p.inline = tail
		}
		pos += uint64(head + p.inline) //nolint:gosec // sizes
	}
	for _, n := range order {
		b.placeOwn(n)
	}
	blocks = (pos + blockSize - 1) / blockSize
	if uint64(b.next)+blocks > 1<<32-1 {
		return nil, 0, badArchive("larger than a file system can be")
	}
	return order, blocks, nil
}

// position finds the next place for an inode of that form at or after pos. An
// inode does not cross a block, and a tail that can share its inode's block does.
func position(pos uint64, xattrs, tail int) uint64 {
	pos = roundUp(pos, slotSize)
	room := blockSize - pos%blockSize
	whole := uint64(inodeSize + xattrs + tail) //nolint:gosec // a size
	if room < inodeSize || (whole <= blockSize && room < whole) {
		return roundUp(pos, blockSize)
	}
	return pos
}

// placeOwn gives blocks to the part of a directory or link that is not inline.
func (b *Builder) placeOwn(n *node) {
	own := n.ownSize()
	if own == 0 {
		return
	}
	n.size = uint64(own) //nolint:gosec // a size
	if own > n.place.inline {
		n.block = b.next
		b.next += uint32(roundUp(uint64(own-n.place.inline), blockSize) / blockSize) //nolint:gosec // bounded by maxNodes names
	}
}

// ownSize is the size of what the writer makes up itself: directories' entries
// and links' targets. Files have their data already.
func (n *node) ownSize() int {
	switch n.mode & typeMask {
	case typeLink:
		return len(n.target)
	case typeDir:
		return dirSize(n.place.names)
	}
	return 0
}

// ownData encodes what ownSize measures. All nids are known by now.
func (n *node) ownData() []byte {
	switch n.mode & typeMask {
	case typeLink:
		return []byte(n.target)
	case typeDir:
		return n.dirData()
	}
	return nil
}

func (n *node) encode() []byte {
	p := &n.place
	le := binary.LittleEndian
	buf := make([]byte, inodeSize, inodeSize+len(p.xattrs)+p.inline)
	format := uint16(formatExtended | layoutPlain)
	if p.inline > 0 {
		format = formatExtended | layoutInline
	}
	le.PutUint16(buf[0:], format)
	if len(p.xattrs) > 0 {
		le.PutUint16(buf[2:], uint16((len(p.xattrs)-xattrHeaderSize)/4+1)) //nolint:gosec // bounded by maxXattrs
	}
	le.PutUint16(buf[4:], uint16(n.mode)) //nolint:gosec // 16 bits by construction
	le.PutUint64(buf[8:], n.size)
	if t := n.mode & typeMask; t == typeChar || t == typeBlock {
		le.PutUint32(buf[16:], n.rdev)
	} else {
		le.PutUint32(buf[16:], n.block)
	}
	le.PutUint32(buf[20:], p.number)
	le.PutUint32(buf[24:], n.uid)
	le.PutUint32(buf[28:], n.gid)
	le.PutUint64(buf[32:], uint64(n.mtime.Unix()))       //nolint:gosec // the field is signed in the kernel
	le.PutUint32(buf[40:], uint32(n.mtime.Nanosecond())) //nolint:gosec // under 10^9
	le.PutUint32(buf[44:], n.links)
	buf = append(buf, p.xattrs...)
	if p.inline == 0 {
		return buf
	}
	own := n.ownData()
	return append(buf, own[len(own)-p.inline:]...)
}

func superblock(inodes uint64, metaBlock, blocks uint32, uuid [16]byte) []byte {
	le := binary.LittleEndian
	block := make([]byte, blockSize)
	sb := block[superOffset:]
	le.PutUint32(sb[0:], superMagic)
	le.PutUint32(sb[8:], featureChecksum|featureMtime)
	sb[12] = blockBits
	le.PutUint16(sb[14:], 0) // the root's nid
	le.PutUint64(sb[16:], inodes)
	le.PutUint32(sb[36:], blocks)
	le.PutUint32(sb[40:], metaBlock)
	copy(sb[48:], uuid[:])
	copy(sb[64:80], "aegisvm")
	// The kernel's crc32c has no final inversion, Go's has.
	le.PutUint32(sb[4:], ^crc32.Checksum(sb, crc32.MakeTable(crc32.Castagnoli)))
	return block
}

// dirBlocks splits a directory's names into those of each block.
func dirBlocks(names []string) [][]string {
	var blocks [][]string
	start, used := 0, 0
	for i, name := range names {
		need := direntSize + len(name)
		if used+need > blockSize {
			blocks = append(blocks, names[start:i])
			start, used = i, 0
		}
		used += need
	}
	return append(blocks, names[start:])
}

// dirSize is the size of the data of a directory with these names.
func dirSize(names []string) int {
	blocks := dirBlocks(names)
	last := blocks[len(blocks)-1]
	size := (len(blocks) - 1) * blockSize
	for _, name := range last {
		size += direntSize + len(name)
	}
	return size
}

// sortedNames returns all entries of a directory, with "." and "..", in the order
// the kernel's binary search wants: by bytes.
func (n *node) sortedNames() []string {
	names := make([]string, 0, len(n.children)+2)
	names = append(names, ".", "..")
	for name := range n.children {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}

// dirData encodes a directory.
func (n *node) dirData() []byte {
	var buf bytes.Buffer
	for _, names := range dirBlocks(n.place.names) {
		if rest := buf.Len() % blockSize; rest != 0 {
			_, _ = buf.Write(make([]byte, blockSize-rest)) // never fails
		}
		offset := len(names) * direntSize
		for _, name := range names {
			c := n.entry(name)
			var d [direntSize]byte
			binary.LittleEndian.PutUint64(d[0:], c.place.nid())
			binary.LittleEndian.PutUint16(d[8:], uint16(offset)) //nolint:gosec // within a block
			d[10] = direntType(c.mode)
			_, _ = buf.Write(d[:]) // never fails
			offset += len(name)
		}
		for _, name := range names {
			_, _ = buf.WriteString(name) // never fails
		}
	}
	return buf.Bytes()
}

func (n *node) entry(name string) *node {
	switch name {
	case ".":
		return n
	case "..":
		return n.parent
	}
	return n.children[name]
}

func direntType(mode uint32) byte {
	switch mode & typeMask {
	case typeFile:
		return 1
	case typeDir:
		return 2
	case typeChar:
		return 3
	case typeBlock:
		return 4
	case typeFIFO:
		return 5
	case typeSocket:
		return 6
	case typeLink:
		return 7
	}
	panic(fmt.Sprintf("rootfs: mode %o has no type", mode))
}

// xattrName splits a name into the index of its class and the rest. Index 0 means
// that the class cannot be held.
func xattrName(name string) (index byte, suffix string) {
	switch name {
	case "system.posix_acl_access":
		return 2, ""
	case "system.posix_acl_default":
		return 3, ""
	}
	for _, c := range []struct {
		index  byte
		prefix string
	}{{1, "user."}, {4, "trusted."}, {6, "security."}} {
		if s, ok := strings.CutPrefix(name, c.prefix); ok && s != "" {
			return c.index, s
		}
	}
	return 0, ""
}

// encodeXattrs returns the area behind an inode that holds its attributes.
func encodeXattrs(xattrs map[string]string) []byte {
	if len(xattrs) == 0 {
		return nil
	}
	names := make([]string, 0, len(xattrs))
	for name := range xattrs {
		names = append(names, name)
	}
	slices.Sort(names)
	buf := make([]byte, xattrHeaderSize)
	for _, name := range names {
		index, suffix := xattrName(name)
		value := xattrs[name]
		var e [xattrEntrySize]byte
		e[0], e[1] = byte(len(suffix)), index                    //nolint:gosec // bounded by maxName
		binary.LittleEndian.PutUint16(e[2:], uint16(len(value))) //nolint:gosec // bounded by maxXattrs
		buf = append(append(append(buf, e[:]...), suffix...), value...)
		buf = append(buf, make([]byte, roundUp(uint64(len(buf)), 4)-uint64(len(buf)))...)
	}
	return buf
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }
