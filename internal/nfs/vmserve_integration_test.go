//go:build integration

package nfs_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/nfs"
)

// ordinary is an ordinary user of the host.
const ordinary = 12345

// external is a server in a process of its own, which may be another user's and can be
// killed.
type external struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
}

// TestServer is such a process's life: it serves the folder that is named to it until
// its standard input ends.
func TestServer(t *testing.T) {
	dir := os.Getenv("AEGIS_NFS_DIR")
	if dir == "" {
		t.Skip("for other tests")
	}
	s, err := nfs.New(nfs.Options{Journal: os.Getenv("AEGIS_NFS_JOURNAL")}, nfs.Export{Name: "/", Dir: dir, ID: 1})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve(ln) }()
	fmt.Printf("listening %s\n", ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// startExternal starts a server of folder, as the ordinary user where this one is root.
func startExternal(t testing.TB, exe, dir, journal string, asOrdinary bool) *external {
	t.Helper()
	cmd := exec.Command(exe, "-test.run=^TestServer$", "-test.count=1")
	cmd.Env = append(os.Environ(), "AEGIS_NFS_DIR="+dir, "AEGIS_NFS_JOURNAL="+journal)
	cmd.Dir = dir
	if asOrdinary && os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e := &external{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if !ok {
		e.kill()
		t.Fatalf("the server says %q, %v", line, err)
	}
	e.addr = addr
	t.Cleanup(e.kill)
	return e
}

// kill ends the process at once.
func (e *external) kill() {
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
}

// program returns a copy of this program that everybody may execute, and a folder that
// belongs to the ordinary user where this one is root.
func program(t testing.TB, asOrdinary bool) (exe, dir string) {
	t.Helper()
	top, err := os.MkdirTemp("", "nfs-server") //nolint:usetesting // nobody else gets into t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	exe, dir = filepath.Join(top, "server"), filepath.Join(top, "ws")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.WriteFile(exe, self, 0o755), os.Chmod(top, 0o755), os.Mkdir(dir, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if asOrdinary && os.Geteuid() == 0 {
		if err := os.Chown(dir, ordinary, ordinary); err != nil {
			t.Fatal(err)
		}
	}
	return exe, dir
}

// relay is the gateway's port in front of an external server, which may be exchanged.
type relay struct {
	ln    net.Listener
	mu    sync.Mutex
	addr  string
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func (v *vm) relay(t testing.TB, addr string) *relay {
	t.Helper()
	ln, err := v.network.Listen(2049)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, addr: addr, conns: map[net.Conn]struct{}{}}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		r.drop()
		r.wg.Wait()
	})
	return r
}

// to has new connections go to another server, and ends the old ones.
func (r *relay) to(addr string) {
	r.mu.Lock()
	r.addr = addr
	r.mu.Unlock()
	r.drop()
}

func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *relay) carry(guest net.Conn) {
	defer func() { _ = guest.Close() }()
	r.mu.Lock()
	addr := r.addr
	r.conns[guest] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, guest)
	}()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(guest, server)
		_ = guest.Close()
	})
	_, _ = io.Copy(server, guest)
	_ = server.Close()
	wg.Wait()
}
