package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"log/slog"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Agent is the part of client.Client that reaches the agent.
type Agent interface {
	TetherSend(ctx context.Context, ref string, f api.Frame) (api.TetherSent, error)
	TetherStream(ctx context.Context, ref string, q client.TetherQuery) iter.Seq2[api.Frame, error]
	TetherWatermark(ctx context.Context, ref, channel string) (api.Watermark, error)
	SetTetherWatermark(ctx context.Context, ref string, w api.Watermark) (api.Watermark, error)
	PutBlob(ctx context.Context, ref string, picture []byte) (api.Blob, error)
	ReadWorkspace(ctx context.Context, ref, path string) ([]byte, error)
	Exec(ctx context.Context, ref string, req api.ExecRequest) (*client.Attach, error)
}

// maxSessions bounds how many sessions the agent can make a channel serve.
const maxSessions = 16 << 10

// Line is a channel's connection with the agent. Channels call its methods together.
type Line struct {
	log   *slog.Logger
	agent Agent
	ref   string // of the instance
	name  string // of the channel
	dir   string // of the sessions' files

	marks tracker

	mu       sync.Mutex
	sessions map[string]*Session
	serve    func(*Session) // starts Serve; nil while the line does not run
}

// NewLine returns the connection of the channel name with the agent in an instance. The
// files of its sessions are in dir, which is made when there is one.
func NewLine(log *slog.Logger, agent Agent, ref, name, dir string) *Line {
	return &Line{
		log: log, agent: agent, ref: ref, name: name, dir: dir,
		marks: newTracker(), sessions: map[string]*Session{},
	}
}

// Run runs a channel until ctx ends, and returns when all that belongs to it has ended.
func (l *Line) Run(ctx context.Context, ch Channel) {
	var wg sync.WaitGroup
	l.mu.Lock()
	l.serve = func(s *Session) { wg.Go(func() { ch.Serve(ctx, s) }) }
	l.mu.Unlock()
	wg.Go(func() { l.receive(ctx, ch) })
	wg.Go(func() { l.follow(ctx, ch) })
	wg.Go(func() { l.mark(ctx) })
	<-ctx.Done()
	l.mu.Lock()
	l.serve = nil
	l.mu.Unlock()
	wg.Wait()
}

// Dir is where the channel may keep files of its own. It need not exist.
func (l *Line) Dir() string { return l.dir }

// receive runs Receive, again and again.
func (l *Line) receive(ctx context.Context, ch Channel) {
	pause := newBackoff()
	for ctx.Err() == nil {
		begun := time.Now()
		err := ch.Receive(ctx, l)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > time.Minute {
			pause = newBackoff()
		}
		if err != nil {
			l.log.WarnContext(ctx, "a channel cannot receive", logattr.Err(err), hint(err))
		}
		pause.wait(ctx)
	}
}

// Tell gives the agent a message, and wakes it. It returns when the message is stored.
// While the daemon is out of reach it goes on trying; an error says that the message
// cannot be delivered, or that ctx has ended. A message with an id that was told before
// is that message.
func (l *Line) Tell(ctx context.Context, session, id string, m api.UserMessage) error {
	payload, err := encode(m)
	if err != nil {
		return err
	}
	err = l.send(ctx, api.Frame{Type: api.FrameUserMessage, Session: api.Session{Channel: l.name, ID: session}, MsgID: id, Payload: payload})
	if err == nil {
		l.push(session, working)
	}
	return err
}

// Cancel makes the agent end what it does in a session. It is like Tell.
func (l *Line) Cancel(ctx context.Context, session, id string) error {
	return l.send(ctx, api.Frame{Type: api.FrameCancel, Session: api.Session{Channel: l.name, ID: session}, MsgID: id})
}

// Post gives the channel's Serve of a session something of the channel's own.
func (l *Line) Post(session string, v any) { l.push(session, Event{Local: v}) }

// maxTries is how often a message is sent that the daemon fails to store for a reason of its own.
const maxTries = 5

func (l *Line) send(ctx context.Context, f api.Frame) error {
	f.V, f.TS = 1, time.Now().UTC()
	pause := newBackoff()
	for try := 1; ; try++ {
		_, err := l.agent.TetherSend(ctx, l.ref, f)
		if err == nil || ctx.Err() != nil {
			return err
		}
		switch fault.KindOf(err) { //nolint:exhaustive // the others stay as they are
		case fault.Unavailable, fault.Timeout, fault.Canceled:
		case fault.Internal, fault.Exhausted:
			if try == maxTries {
				return err
			}
		default:
			return err
		}
		l.log.WarnContext(ctx, "a message waits for the daemon", logattr.Err(err), hint(err))
		pause.wait(ctx)
	}
}

// PutPicture keeps a picture where the agent finds it.
func (l *Line) PutPicture(ctx context.Context, b []byte) (api.Picture, error) {
	blob, err := l.agent.PutBlob(ctx, l.ref, b)
	return api.Picture{MediaType: blob.MediaType, Blob: blob.Blob, Size: blob.Size}, err
}

// blobName is the form of the names of pictures. They come from the guest.
var blobName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Picture returns the bytes of a picture of the agent's.
func (l *Line) Picture(ctx context.Context, p api.Picture) ([]byte, error) {
	if !blobName.MatchString(p.Blob) {
		return nil, fault.New(fault.Invalid, "%.60q is no name of a picture", p.Blob).By(fault.Guest)
	}
	return l.agent.ReadWorkspace(ctx, l.ref, ".aegis/blobs/"+p.Blob)
}

// Picture returns the bytes of a picture of the agent's.
func (s *Session) Picture(ctx context.Context, p api.Picture) ([]byte, error) {
	return s.line.Picture(ctx, p)
}

// push gives a session an event. That of a session that cannot be had is dropped.
func (l *Line) push(id string, e Event) {
	if s := l.session(id); s != nil {
		s.push(e)
	}
}

// session returns the session id, and starts serving one that is new. It returns nil
// when the line has ended, or there are too many.
func (l *Line) session(id string) *Session {
	l.mu.Lock()
	s, known := l.sessions[id]
	full := len(l.sessions) >= maxSessions
	l.mu.Unlock()
	if known {
		return s
	}
	if full {
		l.log.Error("there are too many sessions; one is not served", logattr.Session(id))
		return nil
	}
	s, err := openSession(l, id, filepath.Join(l.dir, sessionFile(id)))
	if err != nil {
		l.log.Error("a session's file is of no use, and is begun anew", logattr.Session(id), logattr.Err(err))
		s = &Session{ID: id, line: l, file: filepath.Join(l.dir, sessionFile(id)), ready: make(chan struct{}, 1), gap: true}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, known := l.sessions[id]; known {
		return other
	}
	if l.serve == nil {
		return nil
	}
	l.sessions[id] = s
	l.serve(s)
	return s
}

var plainID = regexp.MustCompile(`^[0-9a-z_-]{1,64}$`)

// sessionFile returns the name of a session's file. Ids may come from the guest.
func sessionFile(id string) string {
	if plainID.MatchString(id) {
		return id + ".json"
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256." + hex.EncodeToString(sum[:]) + ".json"
}
