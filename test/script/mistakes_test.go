package script

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mistakes are command lines that AegisVM refuses, split at spaces; a word ” is empty.
// Behind "aegis up" they meet a daemon.
const mistakes = `
aegis nosuch
aegis rn -- true
aegis --nosuch
aegis up now
aegis down now
aegis status now
aegis version now
aegis doctor now
aegis setup now
aegis completion
aegis completion tcsh
aegis help nosuch
aegis help instance nosuch
aegis config nosuch
aegis config show stray
aegis run
aegis run echo hi
aegis run box -- echo hi
aegis run --
aegis run -- ''
aegis run --memroy 1G -- true
aegis run -x -- true
aegis run --memory
aegis run --memory lots -- true
aegis run --memory -1 -- true
aegis run --cpus 0 -- true
aegis run --disk many -- true
aegis run --env -- true
aegis run --env-file nosuch.env -- true
aegis run -i -t -- true
aegis instance nosuch
aegis instance lsit
aegis instance list stray
aegis instance list --running --stopped
aegis instance start
aegis instance start true
aegis instance start web -- true
aegis instance start --name
aegis instance start --pause-after soon -- true
aegis instance start --pause-after -1 -- true
aegis instance info
aegis instance info a b
aegis instance delete
aegis instance delete a b
aegis instance pause --force web
aegis instance prune web
aegis instance prune --stopped-older-than yesterday
aegis exec
aegis exec web
aegis exec web true
aegis exec web ls -- -l
aegis exec -- true
aegis exec --tty=maybe web -- true
aegis shell
aegis shell web bash
aegis logs
aegis logs a b
aegis logs --tail few web
aegis logs --tail -1 web
aegis cp
aegis cp a
aegis cp a b c
aegis cp a b
aegis cp web:/a box:/b
aegis cp web: /tmp
aegis cp '' web:/a
aegis cp nosuch.file web:/a
aegis instance list
aegis instance info web
aegis exec web -- true
aegis shell web
aegis logs web
aegis cp web:/a .
aegis status
aegis up
aegis run --name a/b -- true
aegis run --memory 1M -- true
aegis run --cpus 1000 -- true
aegis run --disk 1G -- true
aegis run --disk 3T -- true
aegis run -- nosuch
aegis run -- /etc/passwd
aegis instance start --name -x -- true
aegis instance start --name web
aegis instance info web
aegis instance pause web
aegis instance start --name web -- sleep 1000
aegis instance start --name web -- sleep 1000
aegis exec web -- nosuch
aegis exec web -- /etc/passwd
aegis cp web:/nosuch .
aegis logs nosuch
aegis logs --since yesterday web
aegis instance stop web
aegis instance pause web
aegis instance start --name web -- true
aegis instance disable web
aegis instance resume web
aegis exec web -- true
aegis shell web
aegis cp web:/a .
aegis instance start --name bad -- nosuch
aegis instance delete web
aegis instance delete web
`

// instanceID is what differs from run to run.
var instanceID = regexp.MustCompile(`inst-[0-9a-z]+`)

// TestMistakes holds what people read when something is wrong, and the status that
// scripts get, to a transcript.
func TestMistakes(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	dir := t.TempDir()
	run := func(words ...string) (int, string) {
		cmd := exec.Command(words[0], words[1:]...) // the last one runs when the test's context has ended
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "AEGIS_HOME="+home, "NO_COLOR=1")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		err := cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok && err != nil {
			t.Fatal(err)
		} else if ok {
			return exit.ExitCode(), errs.String()
		}
		return 0, errs.String()
	}
	t.Cleanup(func() {
		if status, errs := run("aegis", "down"); status != 0 {
			t.Error(errs)
		}
	})
	var got strings.Builder
	for line := range strings.Lines(strings.TrimPrefix(mistakes, "\n")) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)
		for i, w := range words {
			if w == "''" {
				words[i] = ""
			}
		}
		status, errs := run(words...)
		errs = instanceID.ReplaceAllString(errs, "inst-ID")
		fmt.Fprintf(&got, "$ %s\n%s=> %d\n", line, strings.ReplaceAll(errs, home, "HOME"), status)
	}
	file := filepath.Join("testdata", "mistakes.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		is, was := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
		n := 0
		for n < min(len(is), len(was)) && is[n] == was[n] {
			n++
		}
		t.Errorf("line %d is not that of %s; run make gen and read the difference\n%s\nwant\n%s", n+1, file,
			strings.Join(is[max(0, n-3):min(len(is), n+3)], "\n"), strings.Join(was[max(0, n-3):min(len(was), n+3)], "\n"))
	}
}
