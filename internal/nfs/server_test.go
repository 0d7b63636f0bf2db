package nfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// ended fails the test unless the server ends the connection.
func (c *client) ended() {
	c.t.Helper()
	if b, err := c.receive(); err == nil {
		c.t.Errorf("an answer: %x", b)
	} else if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		c.t.Error("the connection goes on")
	}
}

func TestPrograms(t *testing.T) {
	_, r, c, root := folder(t)
	for _, q := range []struct {
		what                   string
		program, version, proc uint32
		accept                 uint32
	}{
		{"NFSACL", 100227, 3, 0, acceptNoProgram},
		{"portmap", 100000, 2, 3, acceptNoProgram},
		{"NFS 2", programNFS, 2, 0, acceptBadVersion},
		{"NFS 4", programNFS, 4, 0, acceptBadVersion},
		{"MOUNT 1", programMount, 1, 1, acceptBadVersion},
		{"NFS null", programNFS, 3, procNull, acceptSuccess},
		{"NFS 22", programNFS, 3, 22, acceptNoProcedure},
		{"NFS high", programNFS, 3, 1 << 31, acceptNoProcedure},
		{"MOUNT null", programMount, 3, mountNull, acceptSuccess},
		{"MOUNT 6", programMount, 3, 6, acceptNoProcedure},
		{"no arguments", programNFS, 3, procGetattr, acceptGarbage},
		{"MOUNT without arguments", programMount, 3, mountMnt, acceptGarbage},
		{"dump", programMount, 3, mountDump, acceptSuccess},
		{"unmount all", programMount, 3, mountUmntAll, acceptSuccess},
	} {
		d, accept := c.rpc(q.program, q.version, q.proc, nil)
		if accept != q.accept {
			t.Errorf("%s: accept %d, want %d", q.what, accept, q.accept)
		}
		if low, high := d.u32(), d.u32(); accept == acceptBadVersion && (low != 3 || high != 3) {
			t.Errorf("%s: the versions are not told", q.what)
		}
	}
	if d, _ := c.rpc(programMount, 3, mountMnt, func(e *encoder) { e.text("/no/such") }); d.u32() != mountNoEnt {
		t.Error("mounted what there is not")
	}
	d, _ := c.rpc(programMount, 3, mountExport, nil)
	if !d.flag() || string(d.opaque(100)) != "/" || d.flag() || d.flag() || d.bad {
		t.Error("the list of exports")
	}
	// Another version of RPC, credentials that nobody has, and what is no call.
	e := c.header(programNFS, version3, procNull)
	binary.BigEndian.PutUint32(e.b[8:], 3)
	c.send(e.b)
	if b, _ := c.receive(); len(b) < 24 || binary.BigEndian.Uint32(b[8:]) != 1 || binary.BigEndian.Uint32(b[12:]) != 0 {
		t.Errorf("another RPC: %x", b)
	}
	e = c.header(programNFS, version3, procNull)
	binary.BigEndian.PutUint32(e.b[24:], 6) // RPCSEC_GSS
	c.send(e.b)
	if b, _ := c.receive(); len(b) < 20 || binary.BigEndian.Uint32(b[8:]) != 1 || binary.BigEndian.Uint32(b[12:]) != 1 {
		t.Errorf("other credentials: %x", b)
	}
	c.send([]byte{0, 0, 0, 1})
	c.send(nil)
	c.send(append(binary.BigEndian.AppendUint32(nil, 5), 0, 0, 0, 1)) // a reply
	if _, st := c.getattr(root); st != statusOK {
		t.Errorf("after all that: %v", st)
	}
	for what, raw := range map[string][]byte{
		"too long":         binary.BigEndian.AppendUint32(nil, lastMark|(maxRequest+1)),
		"far too long":     {0xff, 0xff, 0xff, 0xff},
		"long in pieces":   append(binary.BigEndian.AppendUint32(nil, maxRequest), make([]byte, maxRequest+4)...),
		"endless pieces":   make([]byte, 4*maxFragments+4),
		"ends in the mark": {0x80},
	} {
		c := r.client()
		if what == "long in pieces" {
			binary.BigEndian.PutUint32(raw[4+maxRequest:], lastMark|1)
		}
		_, _ = c.nc.Write(raw)
		if what == "ends in the mark" {
			_ = c.nc.(*net.TCPConn).CloseWrite()
		}
		t.Run(what, func(t *testing.T) { c.t = t; c.ended() })
	}
}

// TestPieces: a request may come in several fragments, and byte by byte.
func TestPieces(t *testing.T) {
	_, _, c, root := folder(t)
	h, _, st := c.create(root, "file", createGuarded, mode(0o600))
	must(t, "create", st)
	data := bytes.Repeat([]byte("0123456789"), 20000)
	e := c.header(programNFS, version3, procWrite)
	e.opaque(h)
	e.u64(0)
	e.u32(uint32(len(data)))
	e.u32(fileSync)
	e.opaque(data)
	for at, n := range []int{10, 0, 100, 9000, 60000, len(e.b)} {
		n = min(n, len(e.b))
		mark := uint32(n)
		if at == 5 {
			mark |= lastMark
		}
		_, err := c.nc.Write(append(binary.BigEndian.AppendUint32(nil, mark), e.b[:n]...))
		if err != nil {
			t.Fatal(err)
		}
		e.b = e.b[n:]
	}
	if d, _ := c.reply(c.xid); status(d.u32()) != statusOK {
		t.Error("in fragments")
	}
	if b, _, _ := c.read(h, 0, MaxIO); !bytes.Equal(b, data) {
		t.Errorf("%d bytes came", len(b))
	}
	e = c.header(programNFS, version3, procGetattr)
	e.opaque(h)
	for _, b := range record3(e.b) {
		if _, err := c.nc.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if d, _ := c.reply(c.xid); status(d.u32()) != statusOK {
		t.Error("byte by byte")
	}
}

// TestParallel: requests of one connection are worked on together, and answered in any
// order.
func TestParallel(t *testing.T) {
	dir, r, c, root := folder(t)
	for i := range 200 {
		write(t, filepath.Join(dir, strconv.Itoa(i)), strconv.Itoa(i))
	}
	// One that waits for a walk holds up nothing.
	f := r.s.volumes[0].finder
	f.mu.Lock()
	f.resting = time.Now().Add(2 * time.Second)
	f.mu.Unlock()
	lost := c.walk(root, "0")
	lost[13]++
	e := c.header(programNFS, version3, procGetattr)
	e.opaque(lost)
	c.send(e.b)
	slow := c.xid
	handles := map[uint32]string{}
	for i := 1; i < 200; i++ {
		e := c.header(programNFS, version3, procLookup)
		e.opaque(root)
		e.text(strconv.Itoa(i))
		c.send(e.b)
		handles[c.xid] = strconv.Itoa(i)
	}
	for range 199 {
		b, err := c.receive()
		if err != nil {
			t.Fatal(err)
		}
		xid := binary.BigEndian.Uint32(b)
		if xid == slow {
			t.Fatal("the slow one was not the last")
		}
		delete(handles, xid)
	}
	if len(handles) > 0 {
		t.Errorf("no answers to %v", handles)
	}
	if d, _ := c.reply(slow); status(d.u32()) != errStale {
		t.Error("the slow one")
	}
	var wg sync.WaitGroup
	for k := range 6 {
		c := r.client()
		wg.Go(func() {
			for i := range 100 {
				name := fmt.Sprint("client", k, "-", i)
				h, _, st := c.create(root, name, createGuarded, mode(0o600))
				want(t, "create", st, statusOK)
				want(t, "write", c.write(h, 0, uint32(i%3), []byte(name)), statusOK)
				if got := c.text(h); got != name {
					t.Errorf("%s holds %s", name, got)
				}
			}
		})
	}
	wg.Wait()
}

// TestGuestDoesNotRead: a guest that asks and never reads keeps a bounded amount of
// memory, and its connection ends with the server.
func TestGuestDoesNotRead(t *testing.T) {
	dir, r, c, root := folder(t)
	write(t, filepath.Join(dir, "big"), string(make([]byte, MaxIO)))
	h := c.walk(root, "big")
	_ = c.nc.SetWriteDeadline(time.Now().Add(2 * time.Second))
	sent := 0
	for range 20000 {
		e := c.header(programNFS, version3, procRead)
		e.opaque(h)
		e.u64(0)
		e.u32(MaxIO)
		if _, err := c.nc.Write(record3(e.b)); err != nil {
			break
		}
		sent++
	}
	t.Logf("%d requests went out", sent)
	if n := len(r.s.buffers.tokens); n > largeBuffers {
		t.Errorf("%d large buffers", n)
	}
	begun := time.Now()
	r.close()
	if took := time.Since(begun); took > 10*drainTime {
		t.Errorf("the end took %v", took)
	}
}

func TestCloseAnswersWhatIsInWork(t *testing.T) {
	dir, r, c, root := folder(t)
	write(t, filepath.Join(dir, "file"), "text")
	h := c.walk(root, "file")
	begun, goOn := make(chan struct{}), make(chan struct{})
	r.s.volumes[0].syncer.data = func(int) error {
		close(begun)
		<-goOn
		return nil
	}
	e := c.header(programNFS, version3, procCommit)
	e.opaque(h)
	e.u64(0)
	e.u32(0)
	c.send(e.b)
	<-begun
	closed := make(chan struct{})
	go func() { r.close(); close(closed) }()
	time.AfterFunc(50*time.Millisecond, func() { close(goOn) })
	if d, accept := c.reply(c.xid); accept != acceptSuccess || status(d.u32()) != statusOK {
		t.Error("the commit was not answered")
	}
	c.ended()
	<-closed
	if err := r.s.Serve(&net.TCPListener{}); !errors.Is(err, ErrClosed) {
		t.Errorf("serve after close: %v", err)
	}
}

func TestPeers(t *testing.T) {
	r := serve(t, Options{PrivilegedPorts: true}, Export{Name: "/", Dir: t.TempDir(), ID: 7})
	c := r.client()
	_, _ = c.nc.Write(record3(c.header(programNFS, version3, procNull).b))
	c.ended()
	for port := 1023; port > 900; port-- {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
		nc, err := d.Dial("tcp", r.addr)
		if errors.Is(err, os.ErrPermission) {
			t.Skip(err)
		}
		if err != nil {
			continue // somebody has it
		}
		c := &client{t: t, nc: nc}
		c.mnt("/")
		_ = nc.Close()
		break
	}
	// And not too many.
	r = serve(t, Options{}, Export{Name: "/", Dir: t.TempDir(), ID: 7})
	for range maxConns {
		r.client().mnt("/")
	}
	c = r.client()
	_, _ = c.nc.Write(record3(c.header(programNFS, version3, procNull).b))
	c.ended()
}

func TestNew(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "")
	for what, e := range map[string]struct {
		dir  string
		want error
	}{
		"missing": {filepath.Join(dir, "no"), fs.ErrNotExist},
		"a file":  {filepath.Join(dir, "file"), nil},
	} {
		_, err := New(Options{}, Export{Name: "/", Dir: dir, ID: 1}, Export{Name: "/x", Dir: e.dir, ID: 2})
		pathErr, ok := errors.AsType[*fs.PathError](err)
		if !ok || e.want != nil && !errors.Is(pathErr, e.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, e := range []Export{{Name: "/", Dir: dir, ID: 2}, {Name: "/x", Dir: dir, ID: 1}} {
		if s, err := New(Options{}, Export{Name: "/", Dir: dir, ID: 1}, e); err == nil {
			_ = s.Close()
			t.Errorf("two exports %+v", e)
		}
	}
	s, err := New(Options{}, Export{Name: "/", Dir: dir, ID: 1})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve(ln) }()
	_ = ln.Close() // by somebody else, as when the network goes
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
