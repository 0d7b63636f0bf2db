package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What package testing prints of a run that hangs in its last test, and of a guest that prints
// the same by itself.
const printed = `=== RUN   TestA
=== RUN   TestA/one
    a_test.go:1: said
=== RUN   TestA/one/deep
=== RUN   TestA/two
--- PASS: TestNobodys (0.00s)
--- FAIL: TestA (2.50s)
    --- PASS: TestA/one (1.00s)
        --- PASS: TestA/one/deep (0.10s)
    --- FAIL: TestA/two (1.50s)
=== RUN   TestB
--- SKIP: TestB (0.00s)
=== RUN   TestC
panic: test timed out after 10m0s
`

func TestReadOutcomes(t *testing.T) {
	var got []outcome
	if err := readOutcomes("qemu/contract", strings.NewReader(printed), func(o outcome) { got = append(got, o) }); err != nil {
		t.Fatal(err)
	}
	want := []outcome{
		{"qemu/contract", "TestA", "fail", 2500 * time.Millisecond},
		{"qemu/contract", "TestA/one", "pass", time.Second},
		{"qemu/contract", "TestA/two", "fail", 1500 * time.Millisecond},
		{"qemu/contract", "TestB", "skip", 0},
		{"qemu/contract", "TestC", "unfinished", 0},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	var table bytes.Buffer
	if bad := printTable(&table, got, []string{"libkrun: not here"}); bad != 3 {
		t.Errorf("%d of them are bad", bad)
	}
	for _, line := range []string{"qemu    contract  TestA/one  pass        1s\n", "qemu    contract  TestC      unfinished  0s\n", "left out: libkrun: not here\n"} {
		if !strings.Contains(table.String(), line) {
			t.Errorf("%q is not in\n%s", line, &table)
		}
	}
}

// TestReadJob reads jobs that ended well and otherwise, and those of a lab that ended first.
func TestReadJob(t *testing.T) {
	const passes = "=== RUN   TestA\n--- PASS: TestA (1.00s)\n"
	for name, test := range map[string]struct{ log, end, want string }{
		"well":          {passes, "", "TestA pass"},
		"not begun":     {"-", "-", "(the run) not run"},
		"cut off":       {passes + "=== RUN   TestB\n", "-", "TestA pass, TestB unfinished, (the run) unfinished"},
		"failed":        {"=== RUN   TestA\n--- FAIL: TestA (1.00s)\n", "exit status 1", "TestA fail"},
		"died":          {passes, "signal: killed", "TestA pass, (the run) fail: signal: killed"},
		"without tests": {"testing: warning: no tests to run\n", "", "(the run) no tests"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, j := t.TempDir(), job{Driver: "qemu", Name: "e2e"}
			for file, text := range map[string]string{j.log(): test.log, j.end(): test.end} {
				if text == "-" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			all, err := readJob(dir, &j)
			var got []string
			for _, o := range all {
				got = append(got, o.Test+" "+o.Result)
			}
			if err != nil || strings.Join(got, ", ") != test.want {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}
