//go:build integration

package bench

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestlink"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// machineUnderLink is a VM with a raw link to its guest: no core, no API.
type machineUnderLink struct {
	id   instance.ID
	m    vmm.Machine
	link instance.Guest
}

func (x *bed) rawLink(b *testing.B) *machineUnderLink {
	b.Helper()
	spec := instance.Spec{Command: []string{"true"}}
	if err := spec.Complete(instance.Defaults{}); err != nil {
		b.Fatal(err)
	}
	id, magic := instance.NewID(), guestproto.NewMagic()
	plan, err := x.ground.Prepare(b.Context(), id, spec, magic, true)
	if err != nil {
		b.Fatal(err)
	}
	m, err := x.driver.Start(b.Context(), plan.Recipe, vmm.Boot{})
	if err != nil {
		b.Fatal(err)
	}
	link, err := guestlink.Linker{Log: x.log}.Link(b.Context(), m, magic, guestproto.Hello{
		MinVersion: guestproto.MinVersion, Version: guestproto.Version, Owned: []guestproto.Owned{},
	})
	if err != nil {
		b.Fatal(err)
	}
	return &machineUnderLink{id, m, link}
}

func (l *machineUnderLink) close(b *testing.B, x *bed) {
	b.Helper()
	if err := errors.Join(l.link.Close(), l.m.Kill(b.Context()), x.ground.Clear(l.id)); err != nil {
		b.Error(err)
	}
}

// exec runs true over the raw link, to its exit status.
func (l *machineUnderLink) exec(b *testing.B, id guestproto.ExecID) time.Duration {
	b.Helper()
	begin := time.Now()
	if err := l.link.Spawn(b.Context(), guestproto.Spawn{ID: id, Command: []string{"/bin/true"}}); err != nil {
		b.Fatal(err)
	}
	att, err := l.link.Attach(b.Context(), id, 0)
	if err != nil {
		b.Fatal(err)
	}
	return toExit(b, att, begin)
}

func toExit(b *testing.B, att instance.Attachment, begin time.Time) time.Duration {
	b.Helper()
	var took time.Duration
	for {
		f, err := att.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		if f.Type == frame.Exit {
			took = time.Since(begin)
		}
	}
	if err := att.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}

// BenchmarkExec measures exec of true in a running instance through the whole daemon
// side, beside the same over the raw link. The two take turns.
func BenchmarkExec(b *testing.B) {
	x := newBed(b)
	raw := x.rawLink(b)
	defer raw.close(b, x)
	run, err := x.set.Run(context.Background(), instance.Spec{Handle: "bench", Command: []string{"sleep", "3600"}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = run.Close() }()
	var floor, full []time.Duration
	for b.Loop() {
		for i := range 10 {
			floor = append(floor, raw.exec(b, guestproto.ExecID("exec-"+instance.NewID()+instance.ID(rune('a'+i)))))
			begin := time.Now()
			exec, err := x.set.Exec(b.Context(), "bench", instance.ExecSpec{Command: []string{"/bin/true"}})
			if err != nil {
				b.Fatal(err)
			}
			full = append(full, toExit(b, exec, begin))
		}
	}
	report(b, median(floor), median(full), "ms-exec")
}

// report prints a figure beside its floor.
func report(b *testing.B, floor, got time.Duration, name string) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(floor.Microseconds())/1000, "ms-floor")
	b.ReportMetric(float64(got.Microseconds())/1000, name)
	b.ReportMetric(float64(got)/float64(floor), "ratio")
}
