package vmmtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

var questions atomic.Int64

// ask puts a question to the guest of a machine that runs.
func (s *suite) ask(m vmm.Machine, what string, args ...string) string {
	s.Helper()
	conn := s.dialGuest(m)
	defer conn.Close() //nolint:errcheck // the test is about something else
	// The guest remembers the last id: a clone has another's in mind.
	id := fmt.Sprintf("%d%d", time.Now().UnixNano(), questions.Add(1))
	line := fmt.Appendf(nil, "\x01%s?%s\n", id, strings.Join(append([]string{what}, args...), " "))
	begin := fmt.Appendf(nil, "\x02%s=", id)
	var seen []byte
	buf := make([]byte, 4096)
	for end := time.Now().Add(s.h.Patience); time.Now().Before(end); {
		if err := conn.SetDeadline(time.Now().Add(quiet)); err != nil {
			s.Fatalf("deadline: %v", err)
		}
		if _, err := conn.Write(line); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			s.Fatalf("ask the guest: %v", err)
		}
		for err := error(nil); err == nil; {
			var n int
			n, err = conn.Read(buf)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				s.Fatalf("answer of the guest: %v", err)
			}
			seen = append(seen, buf[:n]...)
			if _, after, ok := bytes.Cut(seen, begin); ok {
				if answer, _, whole := bytes.Cut(after, []byte("\n")); whole {
					return string(answer)
				}
			}
		}
	}
	s.Fatalf("the guest does not say: %s", what)
	return ""
}

// says fails the test unless the guest answers with want.
func (s *suite) says(m vmm.Machine, want, what string, args ...string) {
	s.Helper()
	if got := s.ask(m, what, args...); got != want {
		s.Errorf("the guest answers %s with %q, not %q", what, got, want)
	}
}

// keep makes the guest remember something.
func (s *suite) keep(m vmm.Machine, note string) {
	s.Helper()
	s.says(m, note, askKeep, note)
}

// remembers checks what the guest remembers.
func (s *suite) remembers(m vmm.Machine, note string) {
	s.Helper()
	s.says(m, note, askNote)
}
