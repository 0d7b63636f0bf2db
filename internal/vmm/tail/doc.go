// Package tail keeps the end of what a VMM or a guest writes: much of it in a file of
// bounded size, some in memory, where it explains how a machine has ended.
//
// A guest writes to its console what it likes, for as long as it likes. Drivers use the
// package; it knows none of them.
package tail
