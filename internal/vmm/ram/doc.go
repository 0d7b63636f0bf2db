// Package ram keeps the memory of guests in files.
//
// An image is a sparse file. Its first bytes are the memory, each byte at its own
// address, with holes where the guest never wrote or wrote zeros. After them
// stands the table, which says where data is and what it sums up to:
//
//	count * { offset u64, length u32, CRC32C u32 }   ascending, without overlap
//	"aegisram" size u64, count u32, CRC32C u32       size of the memory; sum of the table and of this
//
// All numbers are little-endian. The sums find what disks and people do to files,
// not what an enemy does; the digest of the table, which the caller keeps
// elsewhere, tells one image from another. An image is read as hostile input none
// the less: sizes are checked before anything is allocated.
//
// Custody keeps the rules by which a memory changes hands. The package imports only
// vmm, leaves and the standard library.
package ram
