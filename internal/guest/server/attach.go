package server

import (
	"context"
	"io"
	"sync"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guest/outlog"
	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// attach serves the stream of one process: its log and acknowledgements of its
// input to the host; input, signals, sizes and acknowledgements of the log from it.
func (s *session) attach(ctx context.Context, stream *yamux.Stream, header guestproto.StreamHeader) {
	e, err := s.conf.Table.Get(header.Exec)
	if err != nil {
		_ = refuseErr(stream, err)
		return
	}
	ctx, cancel := e.Attach(ctx)
	defer cancel()
	base, end := e.Log.Bounds()
	if header.Offset > end {
		_ = refuse(stream, guestproto.CodeInvalid, "an offset beyond the end of the output")
		return
	}
	reply := guestproto.StreamReply{Offset: max(base, header.Offset)}
	if e.Stdin != nil {
		reply.Stdin, _, _ = e.Stdin.State()
	}
	if accept(stream, reply) != nil {
		return
	}
	a := &attachment{exec: e, table: s.conf.Table, stream: stream, token: make(chan struct{}, 1)}
	a.token <- struct{}{}
	// The end of ctx frees whoever is stuck on the stream.
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(past) })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { defer cancel(); _ = a.receive() })
	if e.Stdin != nil {
		wg.Go(func() { a.ackInput(ctx) })
	}
	_ = a.send(ctx, reply.Offset)
	<-ctx.Done() // a log that was sent still waits for its acknowledgement
}

type attachment struct {
	exec   *process.Exec
	table  *process.Table
	stream *yamux.Stream
	token  chan struct{} // held while whole frames are written
}

// send copies the log from off on, whole frames at a time.
func (a *attachment) send(ctx context.Context, off uint64) error {
	buf := make([]byte, 2*(outlog.MaxChunk+frame.HeaderSize))
	n := 0
	for {
		got, err := a.exec.Log.Read(ctx, off, buf[n:])
		if err != nil {
			return err // the end, or nobody to send to
		}
		off += uint64(got) //nolint:gosec // never negative
		n += got
		whole := frame.Whole(buf[:n])
		if err := a.write(buf[:whole]); err != nil {
			return err
		}
		n = copy(buf, buf[whole:n])
	}
}

func (a *attachment) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	<-a.token
	defer func() { a.token <- struct{}{} }()
	_, err := a.stream.Write(b)
	return err
}

// ackInput tells the host what the process has taken of its input.
func (a *attachment) ackInput(ctx context.Context) {
	var told uint64
	for {
		_, taken, changed := a.exec.Stdin.State()
		if taken > told {
			if a.write(frame.Append(nil, frame.Ack, frame.EncodeOffset(taken))) != nil {
				return
			}
			told = taken
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// receive takes the host's frames until the stream ends. It never blocks on the
// process: acknowledgements behind its input must get through.
func (a *attachment) receive() error {
	r := frame.NewReader(a.stream)
	for {
		f, err := r.Next()
		if err != nil {
			return err
		}
		switch f.Type { //nolint:exhaustive // other types do not come from a host
		case frame.Stdin:
			if a.exec.Stdin != nil {
				err = a.exec.Stdin.Accept(f.Payload)
			}
		case frame.EOF:
			if a.exec.Stdin != nil {
				a.exec.Stdin.End()
			}
		case frame.Resize:
			if size, sizeErr := f.Winsize(); sizeErr == nil {
				_ = a.exec.Resize(size) // the process may have ended
			}
		case frame.Signal:
			if len(f.Payload) == 1 {
				_ = a.exec.Signal(int(f.Payload[0])) // as above
			}
		case frame.Ack:
			off, ackErr := f.Offset()
			if ackErr == nil && a.table.Ack(a.exec, off) {
				return io.EOF
			}
		}
		if err != nil {
			return err
		}
	}
}
