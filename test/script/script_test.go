package script

import (
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/cli"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/daemon"
	"github.com/xfeldman/aegisvm/internal/doctor"
	"github.com/xfeldman/aegisvm/internal/mcpserver"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/presence"
)

var update = flag.Bool("update", false, "rewrite what scripts expect commands to print")

func TestMain(m *testing.M) {
	// A program built with the race detector sleeps for a second before it exits, in case
	// that a goroutine races with the end. There are hundreds of commands here.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=20 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"aegis": func() {
			os.Exit(cli.Main(os.Args[1:], cli.Host{
				Accelerator: func(context.Context, *config.Config) (doctor.Accelerator, error) {
					return doctor.Accelerator{Name: "none", Isolation: "none", Why: "the in-memory driver of tests"}, nil
				},
			}))
		},
		"aegis-check": func() { os.Exit(cli.Check(os.Args[1:])) },
		"aegisd":      func() { os.Exit(daemon.Main(os.Args[1:], fakeWorld)) },
		"aegis-mcp":   func() { os.Exit(mcpserver.Main(os.Args[1:])) },
	})
}

func TestScripts(t *testing.T) {
	// Under nohup SIGHUP is ignored here, and by all that is started. One that is caught here
	// is not: it is theirs as ever.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangup) }) // scripts run at the same time, after this function
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await, "awaitline": awaitLine, "killdaemon": killDaemon, "random": random, "status": status,
			"get": get, "nowhere": nowhere,
		},
	})
}

// setup gives each script a home of its own, whose daemon ends with it.
func setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	env.Setenv("AEGIS_HOME", home)
	env.Setenv("TERM", "dumb")
	env.Setenv("AEGIS_ROUTER", "off") // scripts run side by side
	env.Defer(func() {
		cmd := exec.Command("aegis", "down")
		cmd.Env = env.Vars
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(string(out)) // the only way to fail from here
		}
	})
	return nil
}

func homeOf(ts *testscript.TestScript) paths.Home { return paths.Home(ts.Getenv("AEGIS_HOME")) }

// patience bounds what scripts wait for.
const patience = 20 * time.Second

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await N")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	c := client.New(homeOf(ts).Socket())
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s, err := c.Status(context.Background())
		if err == nil && s.Instances == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%d instances, %v; want %d", s.Instances, err, want)
		}
	}
}

func awaitLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: awaitline FILE TEXT")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s holds %q, %v", args[0], b, err)
		}
	}
}

func killDaemon(ts *testscript.TestScript, neg bool, args []string) {
	sig := syscall.SIGKILL
	if len(args) == 1 {
		sig = unix.SignalNum(args[0])
	}
	if neg || len(args) > 1 || sig == 0 {
		ts.Fatalf("usage: killdaemon [SIGNAL]")
	}
	pid, err := presence.Holder(homeOf(ts).Lock())
	ts.Check(err)
	if pid == 0 {
		ts.Fatalf("no daemon runs")
	}
	ts.Check(syscall.Kill(pid, sig))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lock, err := presence.AcquireWait(ctx, homeOf(ts).Lock())
	ts.Check(err)
	ts.Check(lock.Release())
	// The kernel closes the files of a process one by one.
	for {
		conn, err := presence.Dial(ctx, homeOf(ts).Socket())
		if err != nil {
			return
		}
		_ = conn.Close() // nothing was said
	}
}

func random(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: random FILE N")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{7}), n)
	ts.Check(errors.Join(err, f.Close()))
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}
