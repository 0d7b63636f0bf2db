package fake_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
	"github.com/xfeldman/aegisvm/internal/vmm/vmmtest"
)

// patientPort waits where a Port tells that the host has gone.
type patientPort struct{ *fake.Port }

func (p patientPort) Read(b []byte) (int, error) {
	for {
		if n, err := p.Port.Read(b); !errors.Is(err, fake.ErrNoHost) {
			return n, err
		}
	}
}

// guest is the suite's.
func guest(ctx context.Context, b fake.Boot) vmm.Exit {
	if b.Network != nil {
		go func() {
			frame := append(binary.BigEndian.AppendUint32(nil, 60), make([]byte, 60)...)
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-tick.C:
				case <-ctx.Done():
					tick.Stop()
					return
				}
				if _, err := b.Network.Write(frame); err != nil {
					return
				}
			}
		}()
	}
	var g vmmtest.Guest
	if b.Saved != nil {
		if err := g.Remember(b.Memory); err != nil {
			return vmm.Exit{Reason: vmm.Panicked, Detail: err.Error()}
		}
	}
	b.OnSave(g.Memory)
	word, _ := g.Serve(patientPort{b.Port})
	switch word {
	case vmmtest.PowerOff, vmmtest.Reboot:
		return vmm.Exit{Reason: vmm.PoweredOff}
	case vmmtest.Flood:
		<-ctx.Done()
	case vmmtest.Panic:
	}
	return vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: told to"}
}

func spec(t *testing.T) vmm.Spec {
	t.Helper()
	return vmm.Spec{ID: t.Name(), Dir: t.TempDir(), Memory: 512 * size.MiB, VCPUs: 1, Network: true}
}

func TestConformance(t *testing.T) {
	vmmtest.Run(t, func(*testing.T) vmmtest.Harness {
		host := fake.NewHost(guest)
		return vmmtest.Harness{
			Driver:  host.Driver(),
			NewSpec: spec,
			Lose: func(_ *testing.T, m vmm.Machine) vmm.Driver {
				m.(*fake.Machine).Release()
				return host.Driver()
			},
			Strike: func(*testing.T, vmm.Machine) {
				for _, v := range host.VMs() {
					v.Die("struck")
				}
			},
			Patience: 10 * time.Second,
		}
	})
}

func start(t *testing.T, host *fake.Host) vmm.Machine {
	t.Helper()
	m, err := host.Driver().Start(t.Context(), spec(t), vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFaults(t *testing.T) {
	injected := errors.New("injected")
	for name, test := range map[string]struct {
		faults fake.Faults
		call   func(context.Context, vmm.Machine) error
	}{
		"pause":  {fake.Faults{Pause: injected}, func(ctx context.Context, m vmm.Machine) error { return m.Pause(ctx) }},
		"resume": {fake.Faults{Resume: injected}, func(ctx context.Context, m vmm.Machine) error { return m.Resume(ctx) }},
		"kill":   {fake.Faults{Kill: injected}, func(ctx context.Context, m vmm.Machine) error { return m.Kill(ctx) }},
		"dial": {fake.Faults{Dial: injected}, func(ctx context.Context, m vmm.Machine) error {
			_, err := m.DialGuest(ctx)
			return err
		}},
		"attach": {fake.Faults{Attach: injected}, func(ctx context.Context, m vmm.Machine) error {
			_, err := m.AttachNetwork(ctx)
			return err
		}},
		"save": {fake.Faults{Save: injected}, func(ctx context.Context, m vmm.Machine) error {
			_, _, err := m.(vmm.Saver).Save(ctx, vmm.Dest{})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			host := fake.NewHost(nil)
			host.Inject(test.faults)
			m := start(t, host)
			if err := test.call(t.Context(), m); !errors.Is(err, injected) {
				t.Errorf("%v, not what was injected", err)
			}
			host.VM(spec(t).ID).Inject(fake.Faults{})
			if name != "save" && name != "kill" {
				if err := test.call(t.Context(), m); err != nil {
					t.Errorf("after the fault: %v", err)
				}
			}
			if err := m.Kill(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("start", func(t *testing.T) {
		host := fake.NewHost(nil)
		host.Inject(fake.Faults{Start: injected})
		if _, err := host.Driver().Start(t.Context(), spec(t), vmm.Boot{}); !errors.Is(err, injected) || len(host.VMs()) > 0 {
			t.Errorf("%v, and %d machines", err, len(host.VMs()))
		}
	})
}

func TestTimedFaults(t *testing.T) {
	for name, test := range map[string]struct {
		faults fake.Faults
		want   vmm.ExitReason
		after  time.Duration
	}{
		"dies":           {fake.Faults{DieAfter: time.Hour}, vmm.Died, time.Hour},
		"panics":         {fake.Faults{PanicAfter: time.Minute}, vmm.Panicked, time.Minute},
		"dies in a hang": {fake.Faults{BootHang: true, DieAfter: time.Minute}, vmm.Died, time.Minute},
		"slow boot":      {fake.Faults{BootDelay: time.Minute}, vmm.PoweredOff, time.Minute},
		"slow start":     {fake.Faults{StartDelay: time.Minute}, vmm.PoweredOff, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := fake.NewHost(func(ctx context.Context, _ fake.Boot) vmm.Exit {
					if test.want != vmm.PoweredOff {
						<-ctx.Done()
					}
					return vmm.Exit{Reason: vmm.PoweredOff}
				})
				host.Inject(test.faults)
				begin := time.Now()
				m, err := host.Driver().Start(t.Context(), vmm.Spec{ID: "a", Dir: "/a"}, vmm.Boot{})
				if err != nil {
					t.Fatal(err)
				}
				exit, err := m.Wait(t.Context())
				if err != nil || exit.Reason != test.want || time.Since(begin) != test.after {
					t.Errorf("%v, %v after %v", exit, err, time.Since(begin))
				}
			})
		})
	}
}

func TestRestart(t *testing.T) {
	host := fake.NewHost(guest)
	s := spec(t)
	old, err := host.Driver().Start(t.Context(), s, vmm.Boot{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := old.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	host.Restart()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a dead daemon's connection still reads")
	}
	if err := old.Kill(t.Context()); err == nil {
		t.Error("a dead daemon still kills")
	}
	m, err := host.Driver().Adopt(t.Context(), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPipe checks what a Port has in common with a virtio-serial port.
func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ports := make(chan *fake.Port, 1)
		host := fake.NewHost(func(ctx context.Context, b fake.Boot) vmm.Exit {
			ports <- b.Port
			<-ctx.Done()
			return vmm.Exit{}
		})
		m, err := host.Driver().Start(t.Context(), vmm.Spec{ID: "a", Dir: "/a"}, vmm.Boot{})
		if err != nil {
			t.Fatal(err)
		}
		port := <-ports
		dial := func() io.ReadWriteCloser {
			conn, err := m.DialGuest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		buf := make([]byte, 100)
		conn := dial()
		_, _ = conn.Write([]byte("lost"))
		if _, err := port.Write([]byte("stale")); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if n, err := port.Read(buf); !errors.Is(err, fake.ErrNoHost) {
			t.Errorf("a guest without a host reads %q, %v", buf[:n], err)
		}
		_ = port.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := port.Write([]byte("x")); err == nil {
			t.Errorf("a guest without a host writes %d bytes", n)
		}
		_ = port.SetWriteDeadline(time.Time{})
		conn = dial()
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "stale" {
			t.Errorf("the next host reads %q, %v", buf[:n], err)
		}
		if err := m.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			_, _ = port.Read(buf)
			close(read)
		}()
		_, _ = conn.Write([]byte("x"))
		synctest.Wait()
		select {
		case <-read:
			t.Error("a paused guest reads")
		default:
		}
		if err := m.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-read
		if err := m.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSave(t *testing.T) {
	booted := make(chan fake.Boot, 2)
	host := fake.NewHost(func(ctx context.Context, b fake.Boot) vmm.Exit {
		b.OnSave(func() []byte { return []byte("remember") })
		booted <- b
		return fake.Idle(ctx, b)
	})
	m := start(t, host)
	<-booted
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved, mem, err := m.(vmm.Saver).Save(t.Context(), vmm.Dest{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	clone, err := host.Driver().Start(t.Context(), spec(t), vmm.Restore{Saved: saved, Memory: mem})
	if err != nil {
		t.Fatal(err)
	}
	if err := clone.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b := <-booted; b.Saved == nil || string(b.Memory) != "remember" {
		t.Errorf("the guest finds %q, %v", b.Memory, b.Saved)
	}
	if err := clone.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
