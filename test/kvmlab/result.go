package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// outcome is what a test came to.
type outcome struct {
	Job, Test string
	Result    string        // "pass", "fail", "skip", "unfinished", or why there is none
	Took      time.Duration // in the lab, whose clock is the host's
}

// good tells whether it is what one wants. A test that needs a VM and has none fails in the lab;
// one that is skipped has nothing to show on this driver.
func (o *outcome) good() bool { return o.Result == "pass" || o.Result == "skip" }

// What package testing says of a test or a part of one: when it begins, and at its end, of which
// the parts' are told with the whole one's.
var (
	begun   = regexp.MustCompile(`^=== RUN +(\S+)`)
	verdict = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)`)
)

// depth is how far parts of tests are told apart in the table: a conformance suite is one test
// with a part for each promise.
const depth = 1

// readOutcomes picks the outcomes out of what a test binary prints, and passes each on. At the end
// come those that have begun and of whose end nothing was heard.
func readOutcomes(job string, r io.Reader, each func(outcome)) error {
	var open []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if m := begun.FindStringSubmatch(lines.Text()); m != nil && strings.Count(m[1], "/") <= depth {
			open = append(open, m[1])
		}
		m := verdict.FindStringSubmatch(lines.Text())
		if m == nil || strings.Count(m[2], "/") > depth {
			continue
		}
		took, err := time.ParseDuration(m[3] + "s")
		if err != nil || !slices.Contains(open, m[2]) {
			continue // not testing's
		}
		open = slices.DeleteFunc(open, func(name string) bool { return name == m[2] })
		each(outcome{Job: job, Test: m[2], Result: strings.ToLower(m[1]), Took: took})
	}
	for _, name := range open {
		each(outcome{Job: job, Test: name, Result: "unfinished"})
	}
	return lines.Err()
}

// theRun stands for a job where there is no test to blame.
const theRun = "(the run)"

// readJob reads what a job came to, from the folder that it left its output in. The lab may
// have ended before it.
func readJob(dir string, j *job) ([]outcome, error) {
	var all []outcome
	log, err := os.Open(filepath.Join(dir, j.log()))
	if errors.Is(err, fs.ErrNotExist) {
		return []outcome{{Job: j.String(), Test: theRun, Result: "not run"}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // only read
	if err := readOutcomes(j.String(), log, func(o outcome) { all = append(all, o) }); err != nil {
		return nil, err
	}
	end, err := os.ReadFile(filepath.Join(dir, j.end()))
	blamed := slices.ContainsFunc(all, func(o outcome) bool { return !o.good() })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		all = append(all, outcome{Job: j.String(), Test: theRun, Result: "unfinished"})
	case err != nil:
		return nil, err
	case len(end) > 0 && !blamed:
		all = append(all, outcome{Job: j.String(), Test: theRun, Result: "fail: " + string(end)})
	case len(all) == 0:
		all = append(all, outcome{Job: j.String(), Test: theRun, Result: "no tests"})
	}
	return all, nil
}

// printTable writes a line for each test, and tells what was left out. It returns how many
// are not good.
func printTable(w io.Writer, all []outcome, leftOut []string) (bad int) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "DRIVER\tTESTS\tTEST\tRESULT\tTOOK") // to a buffer
	for _, o := range all {
		driver, tests, _ := strings.Cut(o.Job, "/")
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%v\n", driver, tests, o.Test, o.Result, o.Took.Round(time.Millisecond)) // as above
		if !o.good() {
			bad++
		}
	}
	_ = t.Flush() // a table that nobody reads
	for _, why := range leftOut {
		_, _ = fmt.Fprintln(w, "left out:", why) // as above
	}
	return bad
}
