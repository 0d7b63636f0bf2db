//go:build integration

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample is what the daemon has after a round.
type sample struct {
	pid    int
	memory int64 // resident, in bytes
	files  int   // that it has open
}

// sample notes what the daemon has.
func (s *soak) sample() {
	s.t.Helper()
	s.samples = append(s.samples, sample{s.daemon(), s.daemonMemory(), len(s.files())})
}

// flat fails the test if the daemon that has lived longest has grown: the median of its
// last third of rounds is compared with that of the third before.
func (s *soak) flat() {
	s.t.Helper()
	n := 0
	for n < len(s.samples) && s.samples[len(s.samples)-1-n].pid == s.samples[len(s.samples)-1].pid {
		n++
	}
	if n == 0 {
		return
	}
	of := s.samples[len(s.samples)-n:]
	first, last := of[0], of[n-1]
	third := n / 3
	text := fmt.Sprintf("the daemon lived for %d rounds: memory %d -> %d MB, open files %d -> %d", n, first.memory>>20, last.memory>>20, first.files, last.files)
	if third >= 5 { // fewer say nothing
		was, is := median(of[third:2*third]), median(of[2*third:])
		text += fmt.Sprintf("; medians of the second and last third: %d, %d MB and %d, %d files", was.memory>>20, is.memory>>20, was.files, is.files)
		if is.memory > was.memory+was.memory/4+8<<20 || is.files > was.files+was.files/2+16 {
			s.t.Errorf("the daemon grows: %s", text)
		}
	}
	s.t.Log(text)
}

// median returns the median of each figure.
func median(of []sample) sample {
	var memory []int64
	var files []int
	for _, s := range of {
		memory, files = append(memory, s.memory), append(files, s.files)
	}
	slices.Sort(memory)
	slices.Sort(files)
	return sample{memory: memory[len(memory)/2], files: files[len(files)/2]}
}

// leavings is what is there when no instance is.
type leavings struct {
	footprint
	ports []string // on which the daemon listens
	paths []string // in the data of the home
}

// warm has all be made that is made once: the templates, of new instances and of those
// whose disk has been written to, and what the daemon keeps open.
func (s *soak) warm() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.ephemeral(ctx, rand.New(rand.NewPCG(0, 0))); err != nil {
		s.t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return s.create(ctx, "warm") },
		func() error { return failed(s.client().Start(ctx, "warm")) },
		func() error { return s.look(ctx, "warm") },
		func() error { return failed(s.client().Restart(ctx, "warm")) },
		func() error { return s.look(ctx, "warm") },
		func() error { return s.snapshot(ctx, "warm") },
		func() error { return s.fork(ctx, "warm") },
	} {
		if err := do(); err != nil {
			s.t.Fatal(err)
		}
	}
	s.sweep(nil)
}

func (s *soak) leavings() leavings {
	s.t.Helper()
	return leavings{s.settled(), s.listening(), s.paths()}
}

// compare fails the test if there is more than there was. A daemon keeps a few connections
// to its database.
func (s *soak) compare(before, after leavings) {
	s.t.Helper()
	const connections = 8
	s.t.Logf("without instances: %+v at the beginning, %+v at the end", before.footprint, after.footprint)
	if after.processes > before.processes || after.instances > before.instances || after.files > before.files+connections {
		s.t.Errorf("left: %+v, and it was %+v\n%v\n%v", after.footprint, before.footprint, s.processes(), s.files())
	}
	if len(after.ports) > len(before.ports) {
		s.t.Errorf("ports left: %v", after.ports)
	}
	for _, path := range after.paths {
		if !slices.Contains(before.paths, path) {
			s.t.Errorf("left in data: %s", path)
		}
	}
}

// listening lists the TCP ports on which the daemon listens.
func (s *soak) listening() (ports []string) {
	s.t.Helper()
	mine := map[string]bool{}
	for _, f := range s.files() {
		if inode, ok := strings.CutPrefix(f, "socket:["); ok {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.daemon()), "net", table))
		if err != nil {
			continue // a host without IPv6
		}
		for line := range strings.Lines(string(data)) {
			// Number, local address, remote one, state (0A is listening), ..., inode.
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && mine[f[9]] {
				ports = append(ports, f[1])
			}
		}
	}
	return ports
}

// paths lists what is in the data of the home, but for logs and the database, which come
// and go as they are written.
func (s *soak) paths() (paths []string) {
	s.t.Helper()
	data := filepath.Join(s.home, "data")
	gone := time.Now().Add(30 * time.Second) // what is being removed may be listed still
	for {
		paths = nil
		err := filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(data, path) // it is below
			if top, _, _ := strings.Cut(rel, string(filepath.Separator)); !strings.HasPrefix(top, "aegis") {
				paths = append(paths, rel)
			}
			return err
		})
		if err == nil {
			return paths
		}
		if time.Now().After(gone) {
			s.t.Fatal(err)
		}
	}
}
