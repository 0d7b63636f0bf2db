//go:build integration

package guestlink

import (
	"crypto/sha256"
	"hash"
	"slices"
	"time"
)

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

func sumSlice(b []byte) []byte {
	s := sum(b)
	return s[:]
}

// hasher counts and hashes what is written.
type hasher struct {
	hash.Hash

	n int
}

func newHasher() *hasher { return &hasher{Hash: sha256.New()} }

func (h *hasher) Write(p []byte) (int, error) {
	h.n += len(p)
	return h.Hash.Write(p)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// drop breaks the session as a fault of the pipe would.
func (l *Link) drop() {
	l.mu.Lock()
	sess := l.sess
	l.mu.Unlock()
	if sess != nil {
		sess.end(errSessionEnded)
	}
}
