//go:build integration

package guestlink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/test/vmrig"
)

// vm is one booted machine with a link to it.
type vm struct {
	machine vmm.Machine
	link    *Link
	dir     string
}

// recipe returns what a VM boots. Its disk is to grow.
func recipe(t *testing.T) (vmm.Spec, guestproto.Magic) {
	t.Helper()
	magic := guestproto.NewMagic()
	spec := vmrig.Recipe(t, magic)
	if err := os.Truncate(spec.Disks[1].Path, int64(9*size.GiB)); err != nil {
		t.Fatal(err)
	}
	return spec, magic
}

func boot(t *testing.T, spec vmm.Spec) vmm.Machine {
	t.Helper()
	return vmrig.Boot(t, testLog(t), spec)
}

func startVM(t *testing.T) *vm {
	t.Helper()
	spec, magic := recipe(t)
	begun := time.Now()
	m := boot(t, spec)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	h := hello()
	h.Identity = &guestproto.Identity{
		Instance: "inst-1", Hostname: "box", MachineID: "0123456789abcdef0123456789abcdef",
		BootID: "2b1d2f0e-0000-4000-8000-000000000000",
	}
	l, err := Open(ctx, testLog(t), m, magic, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	t.Logf("VMM start to welcome: %v", time.Since(begun))
	return &vm{machine: m, link: l, dir: spec.Dir}
}

// sh runs a script and returns its output and status.
func (v *vm) sh(t *testing.T, script string, change ...func(*guestproto.Spawn)) (string, int32) {
	t.Helper()
	req := guestproto.Spawn{ID: newExecID(), Command: []string{"/bin/sh", "-c", script}}
	for _, c := range change {
		c(&req)
	}
	a := start(t, v.link, req)
	defer func() { _ = a.Close() }()
	var out bytes.Buffer
	status, err := drain(a, &out, &out)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return out.String(), status
}

var execIDs struct {
	sync.Mutex
	n int
}

func newExecID() guestproto.ExecID {
	execIDs.Lock()
	defer execIDs.Unlock()
	execIDs.n++
	return guestproto.ExecID(fmt.Sprintf("exec-%d", execIDs.n))
}

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
