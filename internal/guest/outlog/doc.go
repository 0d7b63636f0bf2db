// Package outlog is the output of one process as a log of frames that the host
// fetches, and acknowledges, whenever it is there.
//
// Offsets count encoded bytes from the start of the process. What the host has not
// acknowledged is kept: first in memory, then, where the process has a ring, in a
// file. When both are full, Append blocks and with it the process. Nothing is ever
// dropped. The Exit frame is the last record; there is always room for it.
package outlog
