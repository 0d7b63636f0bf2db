package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// relay passes frames between a client and the program of a run. It holds one
// frame in each direction: whoever does not read stops the one who writes.
type relay struct {
	conn net.Conn
	in   *bufio.Reader // of conn, with what HTTP has read too much
	run  attachment
	log  *slog.Logger

	mu    sync.Mutex
	cause error // why the relay ended the run, if it did
	out   []byte
}

// errGone is the cause when the client has gone. Nobody is left to be told.
var errGone = errors.New("the client has gone")

// serve relays until the program, the VM or the client ends. The run is closed
// then, and the client told, in this order: a client that has its status finds
// nothing left of the run.
func (r *relay) serve(ctx context.Context) {
	stop := func() {}
	if uc, ok := r.conn.(*net.UnixConn); ok {
		var err error
		if stop, err = watchHangup(uc, func() { r.end(errGone) }); err != nil {
			stop = func() {}
			r.end(fault.Wrap(fault.Internal, err, "watch the connection"))
		}
	}
	var up sync.WaitGroup
	up.Go(r.upstream)
	last, err := r.downstream()
	if closeErr := r.run.Close(); closeErr != nil {
		// What is left is taken away at the daemon's next start. The program's status
		// is not made wrong by it.
		r.log.ErrorContext(ctx, "end a run", logattr.Err(closeErr))
	}
	if err != nil {
		last = r.farewell(err)
	}
	if last.Payload != nil {
		_ = r.write(last) // a client that has gone misses nothing
	}
	_ = r.conn.Close() // ends upstream; all was written
	up.Wait()
	stop()
}

// end ends the run from the client's side.
func (r *relay) end(cause error) {
	r.mu.Lock()
	if r.cause == nil {
		r.cause = cause
	}
	r.mu.Unlock()
	if errors.Is(cause, errGone) {
		// It may have closed only its writing half and wait for the end, unable to
		// read: downstream must not wait for it.
		_ = r.conn.SetWriteDeadline(time.Unix(1, 0)) // fails on a closed connection, which is as good
	}
	_ = r.run.Close() // serve closes too, and reports
}

// downstream relays the program's output until its end, and returns the exit frame
// unsent.
func (r *relay) downstream() (frame.Frame, error) {
	for {
		f, err := r.run.Recv()
		if err != nil {
			return frame.Frame{}, err
		}
		if f.Type == frame.Exit {
			return frame.Frame{Type: f.Type, Payload: slices.Clone(f.Payload)}, nil
		}
		if err := r.write(f); err != nil {
			r.end(errGone)
			return frame.Frame{}, err
		}
	}
}

// write is called by one goroutine.
func (r *relay) write(f frame.Frame) error {
	r.out = frame.Append(r.out[:0], f.Type, f.Payload)
	_, err := r.conn.Write(r.out)
	return err
}

// farewell returns the frame that tells the client why there is no status. It has
// no payload when the client has gone.
func (r *relay) farewell(err error) frame.Frame {
	r.mu.Lock()
	cause := r.cause
	r.mu.Unlock()
	if errors.Is(cause, errGone) {
		return frame.Frame{}
	}
	if cause != nil {
		err = cause
	}
	if errors.Is(err, io.EOF) {
		err = fault.New(fault.Internal, "the program's output ended without a status")
	}
	body, _ := json.Marshal(api.ErrorOf(err)) // of strings; cannot fail
	return frame.Frame{Type: frame.Error, Payload: body}
}

// upstream relays the client's frames until the connection ends, which is the
// client's way to end the run.
func (r *relay) upstream() {
	frames := frame.NewReader(r.in)
	deaf := false
	for {
		f, err := frames.Next()
		if err != nil {
			if errors.Is(err, frame.ErrTooLarge) {
				err = fault.Wrap(fault.Invalid, err, "bad attach stream")
			} else {
				err = errGone
			}
			r.end(err)
			return
		}
		if err := checkInput(f); err != nil {
			r.end(err)
			return
		}
		if deaf {
			continue
		}
		// A program that takes no more input may go on without. If it is the VM that
		// has ended, Recv tells. Reading goes on: the client must not be stuck.
		deaf = r.run.Send(f) != nil
	}
}

// checkInput refuses frames that a client must not send.
func checkInput(f frame.Frame) error {
	ok := false
	switch f.Type { //nolint:exhaustive // the others are what a client must not send
	case frame.Stdin:
		ok = true
	case frame.EOF:
		ok = len(f.Payload) == 0
	case frame.Resize:
		_, err := f.Winsize()
		ok = err == nil
	case frame.Signal:
		ok = len(f.Payload) == 1 && f.Payload[0] > 0 && f.Payload[0] <= maxSignal
	}
	if !ok {
		return fault.New(fault.Invalid, "bad attach stream: frame of type %d with %d bytes", f.Type, len(f.Payload))
	}
	return nil
}

// maxSignal is Linux's SIGRTMAX.
const maxSignal = 64
