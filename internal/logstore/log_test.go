package logstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func open(t *testing.T, dir string, limits Limits) *Log {
	t.Helper()
	l, err := Open(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func write(t *testing.T, l *Log, off uint64, s string) {
	t.Helper()
	if err := l.Append(Record{Stream: frame.Stdout, Source: instance.FromProgram, Offset: off, Data: []byte(s)}); err != nil {
		t.Fatal(err)
	}
}

func texts(t *testing.T, l *Log, q instance.LogQuery) []string {
	t.Helper()
	var out []string
	for line, err := range l.Lines(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		s := string(line.Text)
		if line.Gap {
			s = "<gap>"
		}
		if line.Open {
			s += "<open>"
		}
		out = append(out, s)
	}
	return out
}

func TestLinesAcrossRecords(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, DefaultLimits)
	write(t, l, 5, "one\ntw")
	if err := l.Append(Record{Stream: frame.Stderr, Source: instance.FromProgram, Offset: 9, Data: []byte("err\n")}); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(Record{Stream: frame.Stdout, Source: instance.FromExec, Exec: "exec-1", Data: []byte("of exec\n")}); err != nil {
		t.Fatal(err)
	}
	write(t, l, 20, "o\n\nprompt> ")
	want := []string{"one", "err", "of exec", "two", "", "prompt> <open>"}
	if got := texts(t, l, instance.LogQuery{Tail: -1, Execs: true}); !slices.Equal(got, want) {
		t.Errorf("lines = %q, want %q", got, want)
	}
	if got := texts(t, l, instance.LogQuery{Tail: -1}); slices.Contains(got, "of exec") || len(got) != 5 {
		t.Errorf("lines without execs = %q", got)
	}
	if got := texts(t, l, instance.LogQuery{Tail: 2}); !slices.Equal(got, want[4:]) {
		t.Errorf("tail = %q, want %q", got, want[4:])
	}
	if got := texts(t, l, instance.LogQuery{Tail: -1, Exec: "exec-1"}); !slices.Equal(got, []string{"of exec"}) {
		t.Errorf("lines of the exec = %q", got)
	}
	if got := texts(t, l, instance.LogQuery{Tail: -1, Since: time.Now().Add(time.Minute)}); len(got) != 0 {
		t.Errorf("lines of the future = %q", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, DefaultLimits)
	if again.Offset() != 20 {
		t.Errorf("offset after a restart = %d, want 20", again.Offset())
	}
	write(t, again, 25, "rest\n")
	if got := texts(t, again, instance.LogQuery{Tail: 1}); !slices.Equal(got, []string{"prompt> rest"}) {
		t.Errorf("line over a restart = %q", got)
	}
}

// TestEndOfRun has two runs of a program, the first of which ends in the middle of a line:
// the second does not go on with it, and the end is told from other remarks.
func TestEndOfRun(t *testing.T) {
	l := open(t, t.TempDir(), DefaultLimits)
	o := output{l}
	write(t, l, 12, "all\nlast wor")
	if err := errors.Join(
		o.Exec("exec-1", frame.Stdout, []byte("of ")),
		o.System("trouble"), o.End("process exited (code=1)"),
		o.Exec("exec-1", frame.Stdout, []byte("exec\n"))); err != nil {
		t.Fatal(err)
	}
	write(t, l, 6, "again\n")
	want := []string{"all", "trouble", "last wor<open>", "process exited (code=1)", "of exec", "again"}
	if got := texts(t, l, instance.LogQuery{Tail: -1, Execs: true}); !slices.Equal(got, want) {
		t.Errorf("lines = %q, want %q", got, want)
	}
	if got := texts(t, l, instance.LogQuery{Tail: 2}); !slices.Equal(got, []string{want[3], want[5]}) {
		t.Errorf("tail = %q", got)
	}
	for line, err := range l.Lines(t.Context(), instance.LogQuery{Tail: -1}) {
		if err != nil || line.Stream != frame.Stdout || line.End != (string(line.Text) == want[3]) {
			t.Errorf("%q on stream %d ends a run: %v, %v", line.Text, line.Stream, line.End, err)
		}
	}
}

// TestOffsetOutlivesDaemon: where the program's output ends is known to whoever opens the
// log next, whatever others have written since, and also when a new run has written nothing.
func TestOffsetOutlivesDaemon(t *testing.T) {
	dir := t.TempDir()
	limits := Limits{Segment: 1000, Segments: 3}
	again := func(l *Log) *Log {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t, dir, limits)
	}
	l := open(t, dir, limits)
	write(t, l, 77, "from the program\n")
	for i := range 200 {
		if err := l.Append(Record{Stream: frame.Stdout, Source: instance.FromExec, Exec: "exec-1", Data: fmt.Appendf(nil, "line %d\n", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if l = again(l); l.Offset() != 77 {
		t.Errorf("after much output of an exec the offset is %d, want 77", l.Offset())
	}
	if err := l.Restart(); err != nil {
		t.Fatal(err)
	}
	if l = again(l); l.Offset() != 0 {
		t.Errorf("the offset of a run that has written nothing is %d", l.Offset())
	}
	write(t, l, 5, "word\n")
	if l = again(l); l.Offset() != 5 {
		t.Errorf("the offset of the new run is %d, want 5", l.Offset())
	}
	if got := texts(t, l, instance.LogQuery{Tail: -1}); len(got) == 0 || got[len(got)-1] != "word" {
		t.Errorf("lines = %q", got)
	}
}

// TestTornEnd cuts a log at every byte: what is whole before the cut is read, and
// the log goes on behind it.
func TestTornEnd(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, DefaultLimits)
	write(t, l, 4, "aaa\n")
	_, _, whole, _, _ := l.state()
	write(t, l, 8, "bbb\n")
	_, _, size, _, _ := l.state()
	_ = l.Close()
	image, err := os.ReadFile(l.path(1))
	if err != nil {
		t.Fatal(err)
	}
	for cut := whole; cut < size; cut++ {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000001.log"), image[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir, DefaultLimits)
		if l.Offset() != 4 {
			t.Fatalf("cut at %d: offset %d, want 4", cut, l.Offset())
		}
		write(t, l, 8, "ccc\n")
		if got := texts(t, l, instance.LogQuery{Tail: -1}); !slices.Equal(got, []string{"aaa", "ccc"}) {
			t.Fatalf("cut at %d: %q", cut, got)
		}
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	limits := Limits{Segment: 1000, Segments: 3}
	l := open(t, dir, limits)
	for i := range 200 {
		write(t, l, uint64(i), fmt.Sprintf("line %d\n", i))
	}
	var disk int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		disk += fi.Size()
	}
	if disk > limits.Segment*int64(limits.Segments) {
		t.Errorf("%d bytes on disk, at most %d", disk, limits.Segment*int64(limits.Segments))
	}
	got := texts(t, l, instance.LogQuery{Tail: -1})
	if len(got) < 40 || got[len(got)-1] != "line 199" {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
	first := 200 - len(got)
	for i, s := range got {
		if s != fmt.Sprintf("line %d", first+i) {
			t.Fatalf("line %d = %q", first+i, s)
		}
	}
}

// TestFollowers has a fast, a slow and a leaving reader on a log that rotates under
// them: the writer does not wait, the fast one gets all, the slow one learns of its
// gap.
func TestFollowers(t *testing.T) {
	l := open(t, t.TempDir(), Limits{Segment: 4000, Segments: 4})
	const n = 3000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	began, slowMayGoOn := make(chan struct{}), make(chan struct{})
	wg.Go(func() { // slow
		gaps, prev := 0, -1
		for line, err := range l.Lines(ctx, instance.LogQuery{Tail: -1, Follow: true}) {
			if err != nil {
				t.Error(err)
				return
			}
			if line.Gap {
				gaps++
				continue
			}
			var i int
			if _, err := fmt.Sscanf(string(line.Text), "line %d", &i); err != nil || i <= prev {
				t.Errorf("line %q after %d", line.Text, prev)
			}
			prev = i
			if i == 0 {
				close(began)
				<-slowMayGoOn
			}
			if i == n-1 {
				break
			}
		}
		if gaps == 0 {
			t.Error("the slow reader was not told of what it missed")
		}
	})
	wg.Go(func() { // leaves
		for _, err := range l.Lines(ctx, instance.LogQuery{Tail: -1, Follow: true}) {
			if err != nil {
				t.Error(err)
			}
			return
		}
	})
	write(t, l, 0, "line 0\n")
	<-began
	for i := 1; i < n; i++ {
		write(t, l, uint64(i), fmt.Sprintf("line %d\n", i))
	}
	close(slowMayGoOn)
	wg.Wait()
}

func TestFollowEnds(t *testing.T) {
	l := open(t, t.TempDir(), DefaultLimits)
	write(t, l, 1, "a\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	gone := errors.New("client gone")
	for line, err := range l.Lines(ctx, instance.LogQuery{Tail: -1, Follow: true}) {
		if err == nil && string(line.Text) == "a" {
			cancel(gone)
			continue
		}
		if !errors.Is(err, gone) {
			t.Errorf("%q, %v; want the cause of the cancel", line.Text, err)
		}
	}
	done := make(chan []string)
	go func() { done <- texts(t, l, instance.LogQuery{Tail: -1, Follow: true}) }()
	write(t, l, 2, "b\n")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(<-done, " "); got != "a b" {
		t.Errorf("lines up to the close = %q", got)
	}
}

func FuzzReadLog(f *testing.F) {
	rec, err := Record{Time: time.Unix(1, 0), Stream: frame.Stdout, Source: instance.FromProgram, Data: []byte("x\n")}.encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rec)
	f.Add(append(rec, 1, 2, 3))
	f.Fuzz(func(t *testing.T, image []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000001.log"), image, 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir, DefaultLimits)
		before := len(texts(t, l, instance.LogQuery{Tail: -1}))
		write(t, l, 1, "end\n")
		if after := len(texts(t, l, instance.LogQuery{Tail: -1})); after < before || after > before+1 {
			t.Errorf("%d lines, %d before one was written", after, before)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l, err := Open(b.TempDir(), DefaultLimits)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	data := []byte(strings.Repeat("x", 79) + "\n")
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := l.Append(Record{Stream: frame.Stdout, Source: instance.FromProgram, Data: data}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestFollowDeleted takes the folder away under a follower, as the deletion of its
// instance does before it closes the log.
func TestFollowDeleted(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, DefaultLimits)
	write(t, l, 1, "first\n")
	began, over := make(chan struct{}), make(chan error, 1)
	go func() {
		for line, err := range l.Lines(t.Context(), instance.LogQuery{Tail: -1, Follow: true}) {
			if err != nil {
				over <- err
				return
			}
			if string(line.Text) == "first" {
				close(began)
			}
		}
		over <- nil
	}()
	<-began
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-over:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the follower goes on")
	}
}
