package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMigrationEvents(t *testing.T) {
	event := func(status string) string {
		return fmt.Sprintf(`{"event": "MIGRATION", "data": {"status": %q}}`, status)
	}
	q := openQMP(t, func(command string, id uint64) string {
		done := fmt.Sprintf(`{"return": {}, "id": %d}`, id)
		switch command {
		case "good":
			return strings.Join([]string{event("setup"), done, event("active"), event("completed")}, "\n")
		case "bad":
			return strings.Join([]string{done, event("active"), event("failed")}, "\n")
		case "query-migrate":
			return fmt.Sprintf(`{"return": {"status": "failed", "error-desc": "no room"}, "id": %d}`, id)
		case "silent":
			return done + "\n" + event("active")
		case "quit":
			return "close"
		}
		return done
	})
	run := func(ctx context.Context, command string) error {
		t.Helper()
		q.newMigration()
		if err := q.execute(ctx, command, nil, nil); err != nil {
			return err
		}
		return q.finishMigration(ctx)
	}
	for range 2 {
		if err := run(t.Context(), "good"); err != nil {
			t.Errorf("a good one: %v", err)
		}
		if err := run(t.Context(), "bad"); err == nil || !strings.Contains(err.Error(), "failed: no room") {
			t.Errorf("a bad one: %v", err)
		}
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	if err := run(ctx, "silent"); !errors.Is(err, cause) {
		t.Errorf("one without an end: %v", err)
	}
	q.newMigration()
	go func() { _ = q.execute(t.Context(), "quit", nil, nil) }()
	if err := q.finishMigration(t.Context()); !dying(err) {
		t.Errorf("a QEMU that ends: %v", err)
	}
}

// peerQMP is a QEMU at the end of a real socket that tells what came with each
// command.
func peerQMP(t *testing.T, refuse string) (*qmp, <-chan string) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := [2]*net.UnixConn{}
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "qmp")
		c, err := net.FileConn(f)
		closeAll(f)
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
	}
	log := make(chan string, 20)
	served := make(chan struct{})
	go func() {
		defer close(served)
		answerWithFiles(conns[1], refuse, log)
	}()
	q, err := newQMP(t.Context(), conns[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		q.Close()
		<-served
	})
	return q, log
}

func answerWithFiles(c *net.UnixConn, refuse string, log chan<- string) {
	defer c.Close() //nolint:errcheck // a test's
	_, _ = c.Write([]byte(greeting))
	buf, oob := make([]byte, 4096), make([]byte, 64)
	for {
		n, files, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		var m struct {
			Execute string
			ID      uint64
		}
		_ = json.Unmarshal(buf[:n], &m)
		if files > 0 {
			messages, _ := syscall.ParseSocketControlMessage(oob[:files])
			fds, _ := syscall.ParseUnixRights(&messages[0])
			f := os.NewFile(uintptr(fds[0]), "given")
			_, _ = f.Write([]byte("from QEMU"))
			_ = f.Close()
			m.Execute += " with a file"
		}
		log <- m.Execute
		if m.Execute == refuse {
			_, _ = fmt.Fprintf(c, `{"error": {"class": "GenericError", "desc": "not now"}, "id": %d}`+"\n", m.ID)
			continue
		}
		_, _ = fmt.Fprintf(c, `{"return": {}, "id": %d}`+"\n", m.ID)
	}
}

// TestMigrate gives QEMU the end of a pipe.
func TestMigrate(t *testing.T) {
	for _, whole := range []bool{false, true} {
		q, log := peerQMP(t, "")
		r, w, err := newPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := q.migrate(t.Context(), "migrate", whole, w); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(bufio.NewReader(r)) // ends, as nobody has the other end
		if err != nil || string(b) != "from QEMU" {
			t.Errorf("through the pipe came %q, %v", b, err)
		}
		closeAll(r)
		want := []string{"qmp_capabilities", "migrate-set-capabilities", "getfd with a file", "migrate"}
		if whole {
			want = []string{"qmp_capabilities", "migrate-set-capabilities", "migrate-set-parameters", "getfd with a file", "migrate"}
		}
		for _, c := range want {
			if got := <-log; got != c {
				t.Errorf("whole %v: %s, want %s", whole, got, c)
			}
		}
	}
}

// TestMigrateRefused: QEMU keeps the pipe of a migration that it refuses.
func TestMigrateRefused(t *testing.T) {
	q, log := peerQMP(t, "migrate")
	r, w, err := newPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(r)
	if err := q.migrate(t.Context(), "migrate", false, w); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("%v", err)
	}
	var last string
	for len(log) > 0 {
		last = <-log
	}
	if last != "closefd" {
		t.Errorf("the last command is %s", last)
	}
}
