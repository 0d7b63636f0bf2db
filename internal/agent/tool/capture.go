package tool

import "sync"

// capture keeps the beginning and the end of what is written to it. It never blocks.
type capture struct {
	mu         sync.Mutex
	head, tail []byte
	lost       int // bytes between head and tail
}

// Write implements io.Writer.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p)
	if room := maxCapture/2 - len(c.head); room > 0 {
		k := min(room, len(p))
		c.head, p = append(c.head, p[:k]...), p[k:]
	}
	c.tail = append(c.tail, p...)
	// Twice the room, so that what is kept is moved seldom.
	if len(c.tail) > maxCapture {
		cut := len(c.tail) - maxCapture/2
		c.lost += cut
		c.tail = append([]byte(nil), c.tail[cut:]...)
	}
	return n, nil
}

// take returns what was kept, and how many bytes were not.
func (c *capture) take() ([]byte, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(append([]byte(nil), c.head...), c.tail...), c.lost
}
