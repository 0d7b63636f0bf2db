package netstack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	lengthSize = 4 // of the u32 big-endian before each frame

	// maxFrame is the longest frame that is taken.
	maxFrame = header.EthernetMinimumSize + MTU

	// maxLength is the longest that is skipped: a guest can make its card send a
	// little more than a maximal IP packet. What claims to be longer is no frame, and
	// the connection is out of step.
	maxLength = 1 << 17
)

// readFrame returns the next Ethernet frame of r. Those that are too short or too
// long for one are skipped. The caller releases the view.
func readFrame(r *bufio.Reader) (*buffer.View, error) {
	for {
		head, err := r.Peek(lengthSize)
		if err != nil {
			return nil, err
		}
		n := int64(binary.BigEndian.Uint32(head))
		if n > maxLength {
			return nil, fmt.Errorf("a frame of %d bytes", n)
		}
		if _, err := r.Discard(lengthSize); err != nil {
			return nil, err
		}
		if n < header.EthernetMinimumSize || n > maxFrame {
			if _, err := r.Discard(int(n)); err != nil {
				return nil, err
			}
			continue
		}
		v := buffer.NewViewSize(int(n))
		if _, err := io.ReadFull(r, v.AsSlice()); err != nil {
			v.Release()
			return nil, err
		}
		return v, nil
	}
}
