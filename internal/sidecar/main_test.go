package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/paths"
)

// TestMain plays the sidecars of the tests, by the name that the test binary is called by.
func TestMain(m *testing.M) {
	if play, ok := roles[filepath.Base(os.Args[0])]; ok {
		play()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var roles = map[string]func(){
	"reader":    reader,
	"crasher":   func() { fmt.Println("crash"); os.Exit(3) },
	"stubborn":  stubborn,
	"parent":    parent,
	"grandson":  forever,
	"shouter":   shouter,
	"doomed":    doomed,
	"envreader": envReader,
}

func sayPID() { fmt.Println("pid", os.Getpid()) }

// forever outlives everything that does not kill it.
func forever() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	<-make(chan os.Signal) // with a handler there is no deadlock to be found
}

// reader says what it reads, until there is no daemon any more, or it is asked to end.
func reader() {
	sayPID()
	for in := bufio.NewScanner(os.NewFile(3, "secrets")); in.Scan(); {
		fmt.Println("read", in.Text())
	}
}

func stubborn() {
	signal.Ignore(syscall.SIGTERM)
	sayPID()
	select {}
}

// parent leaves a child behind that has gone into a group of its own.
func parent() {
	exe, err := os.Readlink(os.Args[0])
	if err != nil {
		panic(err)
	}
	link := filepath.Join(filepath.Dir(os.Args[0]), "grandson")
	_ = os.Symlink(exe, link)
	for _, pgid := range []bool{false, true} {
		cmd := exec.Command(link)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: pgid}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Println("child", cmd.Process.Pid)
	}
	sayPID()
	_, _ = io.Copy(io.Discard, os.NewFile(3, "secrets"))
}

func shouter() {
	fmt.Print(strings.Repeat("x", 3*maxLine), "\nshort\r\n\xff\n")
	for i := range 10 * lineBurst {
		fmt.Println("line", i)
	}
	fmt.Print("the end")
}

func envReader() {
	for _, e := range os.Environ() {
		fmt.Println("env", e)
	}
	wd, _ := os.Getwd()
	fmt.Println("in", wd)
	_, _ = io.Copy(io.Discard, os.NewFile(3, "secrets"))
}

// doomed is a daemon, of the home in its first argument, that is going to be killed.
func doomed() {
	home := paths.Home(os.Args[1])
	s := New(Options{
		Home: home, Log: slog.New(slog.DiscardHandler),
		Lookup:  func(name string) (string, error) { return filepath.Join(filepath.Dir(os.Args[0]), name), nil },
		Dir:     func(string) (string, error) { return string(home), nil },
		Asks:    func(string, string) ([]string, bool) { return nil, true },
		Resolve: nil, // nothing asks for secrets
		Tell:    func(_, text string) { fmt.Println(text) },
	})
	if err := s.Recover(nil); err != nil { //nolint:staticcheck // there is nothing to end
		panic(err)
	}
	s.Want(Group{ID: "inst-1", Handle: "one", Programs: []Program{{Name: os.Args[2]}}}, true)
	select {}
}
