package files

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/tree"
)

// Stream is the connection to the host, behind its header.
type Stream interface {
	io.ReadWriter
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Copy is one copy whose paths were found to be right.
type Copy struct {
	req    guestproto.Copy
	source *tree.Source
	target *tree.Target
	layer  bool   // the source is the upper folder of an overlay
	done   func() // what Close does last; nil is nothing
}

// OpenChanges opens the upper folder of the overlay that is the root, to read what has
// changed on the image. release is called by Close, or by OpenChanges when it fails.
func OpenChanges(upper string, release func()) (*Copy, error) {
	source, err := tree.OpenSource(upper + "/.")
	if err != nil {
		release()
		return nil, errorOf(err)
	}
	return &Copy{source: source, layer: true, done: release}, nil
}

// Open looks at what the host asks for. Paths are below root. Its errors are fit for
// the host.
func Open(root string, req guestproto.Copy) (*Copy, error) {
	c := &Copy{req: req}
	at, err := below(root, req.Path)
	if err != nil {
		return nil, err
	}
	switch {
	case req.Direction == guestproto.Read:
		c.source, err = tree.OpenSource(at)
	case req.Direction == guestproto.Write && req.Extract:
		c.target, err = tree.OpenFolder(at)
	case req.Direction == guestproto.Write:
		c.target, err = tree.OpenTarget(at)
	default:
		return nil, &guestproto.Error{Code: guestproto.CodeUnsupported, Msg: "copy in direction " + string(req.Direction)}
	}
	if err != nil {
		return nil, errorOf(err)
	}
	return c, nil
}

// below returns where a path of the guest is. It keeps the path's end, which has a
// meaning.
func below(root, p string) (string, error) {
	if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
		return "", &guestproto.Error{Code: guestproto.CodeInvalid, Msg: "the path is not absolute"}
	}
	if root == "/" {
		return p, nil // the kernel resolves it as for any program
	}
	clean := path.Join(root, path.Clean(p))
	switch last := p[strings.LastIndexByte(p, '/')+1:]; last {
	case "":
		clean += "/"
	case ".", "..":
		clean += "/."
	}
	return clean, nil
}

// Close lets go of the files.
func (c *Copy) Close() error {
	if c.done != nil {
		defer c.done()
	}
	if c.source != nil {
		return c.source.Close()
	}
	return c.target.Close()
}

// past frees whoever reads or writes.
var past = time.Unix(1, 0)

// Run copies until all is done, the host gives up or something fails, and tells the
// host which.
func (c *Copy) Run(s Stream) {
	out := newSender(s)
	if c.source == nil {
		out.finish(c.target.Unpack(newReceiver(s), tree.Options{Owners: c.req.Owners, Setuid: true, Note: out.note}))
		return
	}
	// The host says nothing more: what is read from it is its end.
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := s.Read(make([]byte, 1))
		if !isDeadline(err) {
			_ = s.SetWriteDeadline(past) // else a reader that left would hold the copy
		}
	})
	if c.layer {
		out.finish(c.source.PackAll(out, tree.PackOptions{Layer: true, Note: out.note}))
	} else {
		out.finish(c.source.Pack(out, out.note))
	}
	_ = s.SetReadDeadline(past)
	wg.Wait()
}

func isDeadline(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// sender makes frames of what is written to it.
type sender struct {
	w     io.Writer
	buf   []byte // a frame: header, then payload
	notes int
	err   error
}

func newSender(w io.Writer) *sender {
	return &sender{w: w, buf: make([]byte, frame.HeaderSize, frame.HeaderSize+guestproto.CopyChunk)}
}

// Write implements io.Writer.
func (s *sender) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		n := min(len(b), cap(s.buf)-len(s.buf))
		s.buf = append(s.buf, b[:n]...)
		b, written = b[n:], written+n
		if len(s.buf) == cap(s.buf) {
			if err := s.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, s.err
}

// flush sends what has gathered.
func (s *sender) flush() error {
	if n := len(s.buf) - frame.HeaderSize; n > 0 && s.err == nil {
		frame.Append(s.buf[:0], frame.Stdout, s.buf[frame.HeaderSize:])
		_, s.err = s.w.Write(s.buf)
	}
	s.buf = s.buf[:frame.HeaderSize]
	return s.err
}

// maxNote bounds the length of a note.
const maxNote = 1 << 10

// note sends a line about what was left out.
func (s *sender) note(line string) {
	if s.notes++; s.notes > guestproto.CopyNotes || s.flush() != nil {
		return
	}
	if s.notes == guestproto.CopyNotes {
		line = "more was left out"
	}
	s.err = frame.Write(s.w, frame.Stderr, []byte(line[:min(len(line), maxNote)]))
}

// finish tells the end.
func (s *sender) finish(err error) {
	if s.flush() != nil {
		return // nobody listens
	}
	if err == nil {
		_ = frame.Write(s.w, frame.Exit, frame.EncodeStatus(0)) // the host notices if it does not come
		return
	}
	b, _ := json.Marshal(errorOf(err)) // of strings; cannot fail
	_ = frame.Write(s.w, frame.Error, b)
}

// receiver is the tar stream in the host's frames.
type receiver struct {
	frames *frame.Reader
	rest   []byte
	err    error
}

func newReceiver(r io.Reader) *receiver { return &receiver{frames: frame.NewReader(r)} }

// errGivenUp is the end of a copy that the host does not want any more.
var errGivenUp = errors.New("the copy was given up")

// Read implements io.Reader.
func (r *receiver) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		f, err := r.frames.Next()
		switch {
		case err != nil:
			r.err = errGivenUp
		case f.Type == frame.EOF:
			r.err = io.EOF
		case f.Type == frame.Stdin:
			r.rest = f.Payload
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// errorOf classifies an error for the host.
func errorOf(err error) *guestproto.Error {
	code := guestproto.CodeInternal
	_, refused := errors.AsType[*tree.Error](err)
	switch {
	case refused, isAny(err, fs.ErrPermission, syscall.EROFS, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.ELOOP, syscall.EBUSY, fs.ErrExist):
		code = guestproto.CodeInvalid
	case errors.Is(err, fs.ErrNotExist):
		code = guestproto.CodeNotFound
	case isAny(err, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM):
		code = guestproto.CodeExhausted
	}
	return &guestproto.Error{Code: code, Msg: err.Error()}
}

func isAny(err error, of ...error) bool {
	for _, target := range of {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
