package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// maxQMPLine bounds one message of QEMU.
	maxQMPLine = 1 << 20
	// qmpTimeout bounds one command: it protects callers without a deadline from a
	// QEMU whose main loop hangs.
	qmpTimeout = 30 * time.Second
)

var errQMPClosed = errors.New("QEMU closed its control connection")

// qmp is a connection to QEMU's monitor. Its methods may be called together;
// QEMU performs commands in the order in which they were sent.
type qmp struct {
	conn    net.Conn
	version Version       // of the QEMU that runs
	done    chan struct{} // closed when nothing more will be read
	err     error         // why, set before done is closed

	sendMu sync.Mutex // orders writes

	mu       sync.Mutex
	next     uint64
	pending  map[uint64]chan qmpReply
	shutdown string
	trouble  error
	moving   string        // status in the last MIGRATION event, or ""
	moved    chan struct{} // closed and replaced at each
	suffered chan struct{} // closed when trouble is set
}

type qmpReply struct {
	Return json.RawMessage
	Error  *qmpError
}

// qmpError is an error that QEMU answered with.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return e.Desc }

// unknownCommand is the class of the error with which QEMU answers to a command that is newer
// than itself: what it can do is asked, and not concluded from its version.
const unknownCommand = "CommandNotFound"

// qmpMessage is anything that QEMU sends.
type qmpMessage struct {
	Greeting *qmpGreeting    `json:"QMP"`
	ID       uint64          `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *qmpError       `json:"error"`
	Event    string          `json:"event"`
	Data     struct {
		Reason  string `json:"reason"`
		NoSpace bool   `json:"nospace"`
		Status  string `json:"status"`
	} `json:"data"`
}

// qmpGreeting is the first message.
type qmpGreeting struct {
	Version struct {
		QEMU Version `json:"qemu"`
	} `json:"version"`
}

// newQMP negotiates on conn, which it owns from here on, also after an error.
func newQMP(ctx context.Context, conn net.Conn) (*qmp, error) {
	q := &qmp{
		conn: conn, done: make(chan struct{}), pending: map[uint64]chan qmpReply{},
		moved: make(chan struct{}), suffered: make(chan struct{}),
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends the greeting's read
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxQMPLine)
	err := q.greet(lines)
	if !stop() || err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	go q.read(lines)
	if err := q.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) greet(lines *bufio.Scanner) error {
	if !lines.Scan() {
		return errors.Join(errQMPClosed, lines.Err())
	}
	var m qmpMessage
	if err := json.Unmarshal(lines.Bytes(), &m); err != nil || m.Greeting == nil {
		return fmt.Errorf("not a greeting of QEMU: %.80q", lines.Bytes())
	}
	q.version = m.Greeting.Version.QEMU
	return nil
}

// read is the connection's only reader. It ends with the connection.
func (q *qmp) read(lines *bufio.Scanner) {
	defer close(q.done)
	q.err = errQMPClosed
	for lines.Scan() {
		var m qmpMessage
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			q.err = fmt.Errorf("message of QEMU: %w", err)
			_ = q.conn.Close()
			return
		}
		q.take(&m)
	}
}

func (q *qmp) take(m *qmpMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case m.Event == "SHUTDOWN" && q.shutdown == "":
		q.shutdown = m.Data.Reason
	case m.Event == "BLOCK_IO_ERROR":
		if q.trouble == nil {
			close(q.suffered)
		}
		q.trouble = errDisk(m.Data.NoSpace, m.Data.Reason)
	case m.Event == "MIGRATION":
		q.moving = m.Data.Status
		close(q.moved)
		q.moved = make(chan struct{})
	}
	if reply, ok := q.pending[m.ID]; ok && m.Event == "" {
		delete(q.pending, m.ID)
		reply <- qmpReply{Return: m.Return, Error: m.Error}
	}
}

// send writes a command, and a file with it if there is one, and returns where its
// reply will come. Its channel is buffered: nobody need wait for the reply.
func (q *qmp) send(command string, args any, file *os.File) (uint64, chan qmpReply, error) {
	reply := make(chan qmpReply, 1)
	q.mu.Lock()
	q.next++
	id := q.next
	q.pending[id] = reply
	q.mu.Unlock()
	msg, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return 0, nil, err
	}
	q.sendMu.Lock()
	defer q.sendMu.Unlock()
	// A QEMU that reads nothing for so long will not read the rest either.
	_ = q.conn.SetWriteDeadline(time.Now().Add(qmpTimeout))
	if err := q.write(append(msg, '\n'), file); err != nil {
		_ = q.conn.Close() // half a command is on the wire
		return 0, nil, err
	}
	return id, reply, nil
}

func (q *qmp) write(msg []byte, file *os.File) error {
	if file == nil {
		_, err := q.conn.Write(msg)
		return err
	}
	u, ok := q.conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a file over %T", q.conn)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	n := 0
	// Within Control the descriptor cannot be closed and be another's. The connection
	// has a write deadline.
	var sent error
	err = raw.Control(func(fd uintptr) { n, _, sent = u.WriteMsgUnix(msg, syscall.UnixRights(int(fd)), nil) })
	if err = errors.Join(err, sent); err != nil {
		return err
	}
	if n < len(msg) { // the file is with the first byte
		_, err = q.conn.Write(msg[n:])
	}
	return err
}

// execute performs one command and decodes what it returns into out, if that is
// not nil. When ctx ends first the command may still be performed.
func (q *qmp) execute(ctx context.Context, command string, args, out any) error {
	return q.executeWith(ctx, command, args, nil, out)
}

// executeWith is execute of a command that takes a file.
func (q *qmp) executeWith(ctx context.Context, command string, args any, file *os.File, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, qmpTimeout, fmt.Errorf("QEMU did not answer within %v", qmpTimeout))
	defer cancel()
	id, reply, err := q.send(command, args, file)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case r := <-reply:
		if r.Error != nil {
			return fmt.Errorf("%s: %w", command, r.Error)
		}
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(r.Return, out); err != nil {
			return fmt.Errorf("%s: reply: %w", command, err)
		}
		return nil
	case <-q.done:
		return fmt.Errorf("%s: %w", command, q.err)
	case <-ctx.Done():
		q.mu.Lock()
		delete(q.pending, id)
		q.mu.Unlock()
		return fmt.Errorf("%s: %w", command, context.Cause(ctx))
	}
}

// Shutdown returns the reason in the SHUTDOWN event, or "" if none came.
func (q *qmp) Shutdown() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.shutdown
}

// Trouble returns the last error of the host's disks that was reported to the
// guest.
func (q *qmp) Trouble() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.trouble
}

// The ends of a migration.
const (
	migrationDone     = "completed"
	migrationFailed   = "failed"
	migrationCanceled = "cancelled"
)

// newMigration forgets how the migration before ended. The events of the next come
// after the command that starts it.
func (q *qmp) newMigration() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moving = ""
}

// awaitMigration waits for the end of a migration and returns its status.
func (q *qmp) awaitMigration(ctx context.Context) (string, error) {
	for {
		q.mu.Lock()
		status, moved := q.moving, q.moved
		q.mu.Unlock()
		switch status {
		case migrationDone, migrationFailed, migrationCanceled:
			return status, nil
		}
		select {
		case <-moved:
		case <-q.done:
			return "", q.err
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// Close ends the connection and waits for its reader.
func (q *qmp) Close() {
	_ = q.conn.Close() // nothing is lost: replies end with it
	<-q.done
}
