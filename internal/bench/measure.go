package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// Units of figures.
const (
	ms   = "ms"
	mb   = "MB"
	rate = "MB/s"
)

// measurement is one line of the report.
type measurement struct {
	name  string
	unit  string
	floor string // names it
	n     int    // samples of each
	begin func(context.Context, *world) (*sampler, error)
}

// sampler takes samples of a figure and of its floor, in the measurement's unit.
type sampler struct {
	figure func(context.Context) (float64, error)
	floor  func(context.Context) (float64, error)
	end    func(context.Context) error // undoes what begin did; nil is nothing
}

// measurements is the table, in the order of the report.
func measurements() []measurement {
	return []measurement{
		{"cold_boot", ms, "vmm_boot_to_link", 5, coldBoot},
		{"run_true", ms, "vmm_restore_and_exec", 21, runTrue},
		{"exec_true", ms, "link_exec", 30, execTrue},
		{"pause", ms, "vmm_stop", 20, pause},
		{"resume_first_byte", ms, "running_first_byte", 30, resumeFirstByte},
		{"save_pause", ms, "vmm_stop_and_save", 15, savePause},
		{"wake_disk", ms, "template_start", 15, wakeDisk},
		{"wake_first_byte", ms, "running_first_byte", 15, wakeFirstByte},
		{"fork_pause", ms, "vmm_stop_and_save", 5, forkPause},
		{"fork_pause_clone", ms, "vmm_stop_and_save_all", 5, forkPauseClone},
		{"fork_1", ms, "template_start", 5, forks(1)},
		{"fork_30", ms, "template_start_30", 1, forks(30)},
		{"mem_per_fork", mb, "template_start", 2, memPerFork},
		{"port_latency", ms, "guest_network", 50, portLatency},
		{"port_throughput", rate, "guest_network", 7, portThroughput},
		{"workspace_create", ms, "instance_disk", 5, workspaceCreate},
		{"workspace_stat", ms, "instance_disk", 5, workspaceStat},
		{"workspace_write", rate, "instance_disk", 5, workspaceWrite},
		{"workspace_read", rate, "instance_disk", 5, workspaceRead},
		{"workspace_create_9p", ms, "qemu_9p", 5, beside9P("create")},
		{"workspace_stat_9p", ms, "qemu_9p", 5, beside9P("stat")},
		{"workspace_write_9p", rate, "qemu_9p", 5, beside9P("write")},
		{"workspace_read_9p", rate, "qemu_9p", 5, beside9P("read")},
	}
}

// Names returns the names of all figures, in the order of the report.
func Names() []string {
	var names []string
	for _, m := range measurements() {
		names = append(names, m.name)
	}
	return names
}

// take measures one line.
func (m *measurement) take(ctx context.Context, w *world) (r api.BenchResult, err error) {
	s, err := m.begin(ctx, w)
	if err != nil {
		return r, fmt.Errorf("measure %s: %w", m.name, err)
	}
	figures, floors, err := s.samples(ctx, m.n)
	if s.end != nil {
		if ended := s.end(context.WithoutCancel(ctx)); err == nil {
			err = ended
		}
	}
	if err != nil {
		return r, fmt.Errorf("measure %s: %w", m.name, err)
	}
	return api.BenchResult{
		Name: m.name, Unit: m.unit, N: m.n,
		Median: round(median(figures)), P99: round(worst(figures, m.unit)),
		Floor: api.BenchFloor{Name: m.floor, Median: round(median(floors))},
	}, nil
}

// samples takes n of each. Which of a pair comes first alternates: what one leaves in the
// caches of the host is to help both.
func (s *sampler) samples(ctx context.Context, n int) (figures, floors []float64, err error) {
	for i := range n {
		for turn := range 2 {
			if err := context.Cause(ctx); err != nil {
				return nil, nil, err
			}
			take, into := s.figure, &figures
			if (i+turn)%2 == 1 {
				take, into = s.floor, &floors
			}
			v, err := take(ctx)
			if err != nil {
				return nil, nil, err
			}
			*into = append(*into, v)
		}
	}
	return figures, floors, nil
}

// timed returns how long do takes, in milliseconds.
func timed(do func() error) (float64, error) {
	begin := time.Now()
	err := do()
	return since(begin), err
}

func since(begin time.Time) float64 { return float64(time.Since(begin).Microseconds()) / 1000 }
