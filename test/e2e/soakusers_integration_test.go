//go:build integration

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// small is the memory of the soak's machines, in MB: they are many.
const small = 256

// wishes is what users do with any instance, as often as they do it. rude is what they do
// to the wild ones besides.
var (
	wishes = strings.Fields(strings.Repeat("exec exec exec connect connect pause resume start copy logs ", 3) + "hibernate hibernate fork snapshot run jump jump")
	rude   = strings.Fields("stop stop restart restart disable delete")
)

// step does one thing that a user does. Refusals are to be expected, defects are not.
func (s *soak) step(ctx context.Context, rng *rand.Rand, name string) {
	can := wishes
	if name != steady {
		can = append(slices.Clip(can), rude...)
	}
	what := can[rng.IntN(len(can))]
	err := s.wish(ctx, rng, what, name)
	s.count(what, err, 1)
	if fault.KindOf(err) == fault.NotFound {
		err = s.create(ctx, name)
		s.count("create", err, 1)
	}
	if err != nil {
		select { // what is refused now is refused again at once
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *soak) wish(ctx context.Context, rng *rand.Rand, what, name string) (err error) {
	c := s.client()
	switch what {
	case "start":
		return failed(c.Start(ctx, name))
	case "stop":
		return failed(c.Stop(ctx, name))
	case "restart":
		return failed(c.Restart(ctx, name))
	case "pause":
		return failed(c.Pause(ctx, name))
	case "resume":
		return failed(c.Resume(ctx, name))
	case "hibernate":
		return failed(c.Hibernate(ctx, name))
	case "disable":
		return failed(c.Disable(ctx, name))
	case "delete":
		return failed(c.Delete(ctx, name))
	case "exec":
		return s.echo(ctx, name, rng)
	case "run":
		return s.ephemeral(ctx, rng)
	case "copy":
		return s.copy(ctx, name, rng)
	case "connect":
		return s.look(ctx, name)
	case "fork":
		return s.fork(ctx, name)
	case "snapshot":
		return s.snapshot(ctx, name)
	case "jump":
		return s.jump(ctx, name, rng)
	case "logs":
		for _, err = range c.Logs(ctx, name, client.LogQuery{Tail: 10}) {
			if err != nil {
				break
			}
		}
	}
	return err
}

// create makes an instance that runs a witness.
func (s *soak) create(ctx context.Context, name string) error {
	never := int64(0)
	_, _, err := s.client().Create(ctx, api.CreateRequest{
		Handle: name, Command: witness, PauseAfterS: &never, MemoryMB: small, Expose: []api.ExposeRequest{{Port: 80, Protocol: "tcp"}},
	})
	return err
}

// errand is a command whose output and status are known.
type errand struct {
	word   string
	status int
}

func newErrand(rng *rand.Rand) errand { return errand{strconv.Itoa(rng.Int()), rng.IntN(100)} }

func (e errand) command() []string {
	return []string{"sh", "-c", fmt.Sprintf("echo %s; exit %d", e.word, e.status)}
}

// finish reads what came of it.
func (e errand) finish(ctx context.Context, s *soak, where string, attach *client.Attach) error {
	var out strings.Builder
	got, err := attach.Stream(ctx, client.Streams{Stdout: &out})
	if err != nil {
		return err
	}
	// A stop or a kill of the VM's processes is no lie.
	if got != 143 && got != 137 && (got != e.status || out.String() != e.word+"\n") {
		s.defect("%s: status %d, %q; want %d, %s", where, got, out.String(), e.status, e.word)
	}
	return nil
}

// echo runs a command in an instance.
func (s *soak) echo(ctx context.Context, name string, rng *rand.Rand) error {
	e := newErrand(rng)
	attach, err := s.client().Exec(ctx, name, api.ExecRequest{Command: e.command()})
	if err != nil {
		return err
	}
	return e.finish(ctx, s, "exec in "+name, attach)
}

// ephemeral runs a command in a machine of its own.
func (s *soak) ephemeral(ctx context.Context, rng *rand.Rand) error {
	e := newErrand(rng)
	attach, err := s.client().Run(ctx, api.RunRequest{Command: e.command(), MemoryMB: small})
	if err != nil {
		return err
	}
	return e.finish(ctx, s, "run", attach)
}

// copy reads a file that every instance has.
func (s *soak) copy(ctx context.Context, name string, rng *rand.Rand) error {
	d, err := s.client().CopyFrom(ctx, name, "/usr/bin/env")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read
	buf := make([]byte, 1+rng.IntN(64<<10))
	for n := 0; ; {
		m, err := d.Read(buf)
		n += m
		if err != nil && err.Error() == "EOF" {
			if n < 10_000 {
				s.defect("copy from %s: %d bytes", name, n)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fork makes a copy of an instance, looks at its memory, and deletes it.
func (s *soak) fork(ctx context.Context, name string) error {
	source, err := s.client().Info(ctx, name)
	if err != nil {
		return err
	}
	known := s.memory.of(source.ID)
	forks, err := s.client().Fork(ctx, name, api.ForkRequest{})
	if err != nil {
		return err
	}
	s.memory.inherit(forks[0].ID, known)
	if name == steady && forks[0].Cold {
		s.defect("a fork of %s has no memory", name)
	}
	return s.visit(ctx, forks[0].ID)
}

// visit looks at the memory of a copy, and deletes it.
func (s *soak) visit(ctx context.Context, id string) error {
	if err := s.look(ctx, id); err != nil {
		return err
	}
	return failed(s.client().Delete(ctx, id))
}

// snapshot takes one, starts an instance from it, looks at its memory, and deletes both.
func (s *soak) snapshot(ctx context.Context, name string) error {
	source, err := s.client().Info(ctx, name)
	if err != nil {
		return err
	}
	known, never := s.memory.of(source.ID), int64(0)
	snap, err := s.client().Snapshot(ctx, name, "")
	if err != nil {
		return err
	}
	made, _, err := s.client().Create(ctx, api.CreateRequest{Snapshot: snap.ID, PauseAfterS: &never})
	if err != nil {
		return err
	}
	s.memory.inherit(made.ID, known)
	if err := s.visit(ctx, made.ID); err != nil {
		return err
	}
	return failed(s.client().DeleteSnapshot(ctx, snap.ID))
}

// jump sets the clock of a guest, as a program in it can. After a sleep it is right again.
func (s *soak) jump(ctx context.Context, name string, rng *rand.Rand) error {
	s.jumping.Lock()
	defer s.jumping.Unlock()
	by := time.Duration(rng.IntN(2000)-1000) * time.Hour
	if _, err := s.say(ctx, name, fmt.Sprintf("date -s @%d", time.Now().Add(by).Unix())); err != nil {
		return err
	}
	if err := failed(s.client().Pause(ctx, name)); err != nil {
		return err
	}
	begin := time.Now()
	out, err := s.say(ctx, name, "date +%s.%N")
	if err != nil {
		return err
	}
	at, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil {
		return errCut // it was killed before it had said all
	}
	told := time.Unix(0, int64(at*1e9))
	if told.Before(begin.Add(-time.Second)) || told.After(time.Now().Add(time.Second)) {
		s.defect("%s: the clock is %v after a pause, between %v and %v", name, told, begin, time.Now())
	}
	return nil
}

// say runs a script in an instance and returns what it prints.
func (s *soak) say(ctx context.Context, name, script string) (string, error) {
	attach, err := s.client().Exec(ctx, name, api.ExecRequest{Command: []string{"sh", "-c", script}})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	_, err = attach.Stream(ctx, client.Streams{Stdout: &out})
	return out.String(), err
}
