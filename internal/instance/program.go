package instance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// programExit tells how an instance's program ended.
type programExit struct {
	live   *live // of which machine
	status int32
}

// The rule for programs that crash in a loop: so many failures, each soon after its
// start, within a span of time, bar triggers from starting it again.
const (
	crashLimit = 5
	crashSoon  = 10 * time.Second
	crashSpan  = 2 * time.Minute
)

// crashes holds the times of a program's latest early failures.
type crashes []time.Time

// add notes an end of the program and reports whether that makes a crash loop.
func (c *crashes) add(status int32, ran time.Duration, now time.Time) bool {
	if status == 0 || ran >= crashSoon {
		*c = nil
		return false
	}
	old := func(at time.Time) bool { return now.Sub(at) >= crashSpan }
	*c = append(slices.DeleteFunc(*c, old), now)
	return len(*c) >= crashLimit
}

// programEnded decides what the end of the program means.
func (a *actor) programEnded(e programExit) EventKind {
	// What is told of a machine that is being started is told before it is a.live; but that of
	// one before it, which has ended, may come so late too.
	if a.live != e.live && (a.snap.State != Booting || e.live.isGone()) {
		return Abandon // of an earlier machine; abandoning nothing changes nothing
	}
	now := time.Now()
	if a.crashes.add(e.status, now.Sub(e.live.started), now) {
		a.remark("the program crashed %d times in a row; it is not started again by itself: aegis instance start --name %s", crashLimit, a.spec.Handle)
		a.crashes = nil
		return Crashed
	}
	return Exited
}

// pump stores the program's output until it ends.
func (a *actor) pump(ctx context.Context, l *live) {
	for {
		f, err := l.program.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) && !l.endedBy(err) {
				a.log.WarnContext(ctx, "program output", logattr.Err(err))
			}
			return
		}
		if f.Type == frame.Exit {
			a.programExited(ctx, l, f)
			continue
		}
		if f.Type == frame.Notice {
			a.remarkNotice(f)
			continue
		}
		if err := a.output.Program(f.Type, f.Payload, l.program.Offset()); err != nil {
			return // the log is closed: the next daemon goes on with this frame
		}
	}
}

func (a *actor) programExited(ctx context.Context, l *live, f frame.Frame) {
	status, err := f.Status()
	if err != nil {
		a.log.ErrorContext(ctx, "program status", logattr.Err(err))
		status = -1
	}
	a.conclude(fmt.Sprintf("process exited (code=%d)", status))
	l.over.Store(true)
	// Apart: the actor may wait for the pump.
	a.ops.Go(func() { a.tell(request{ev: Event{Kind: Exited}, exit: &programExit{l, status}}) })
}

// remark writes a system line into the instance's log.
func (a *actor) remark(format string, args ...any) {
	if a.output == nil {
		return
	}
	_ = a.output.System(fmt.Sprintf(format, args...)) // fails when the instance or the daemon ends
}

// conclude writes how a run of the program has ended into the instance's log.
func (a *actor) conclude(text string) {
	if a.output == nil {
		return
	}
	_ = a.output.End(text) // as above
}

// remarkNotice writes what a Notice frame says into the instance's log.
func (a *actor) remarkNotice(f frame.Frame) {
	var n api.Error
	if err := json.Unmarshal(f.Payload, &n); err != nil {
		a.log.Error("notice", logattr.Err(err))
		return
	}
	a.remark("%s; %s", n.Error, n.Hint)
}

// note remembers why the instance is stopped, for people.
func (a *actor) note(err error) {
	a.record.Why = err.Error()
	a.conclude(err.Error())
}

// remember stores what must outlive the daemon. It fails softly: the instance goes
// on, and the next change tries again.
func (a *actor) remember() {
	if err := a.save(); err != nil {
		a.log.Error("remember", logattr.Err(err))
	}
}

func (a *actor) save() error {
	if a.spec.Ephemeral || a.pending {
		return nil
	}
	a.record.Enabled = a.snap.Enabled
	return a.world.Store.SaveInstance(context.Background(), a.record)
}
