package agent

import (
	"context"
	"io"
	"log/slog"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// memoryLimit is what the Go runtime aims to stay below: an idle agent is small, and one
// at work collects sooner rather than grow.
const memoryLimit = 48 << 20

// Main is the agent as a program: it serves until a signal, and returns the exit status.
func Main(stderr io.Writer, getenv func(string) string) int {
	debug.SetMemoryLimit(memoryLimit)
	level := slog.LevelInfo
	if getenv("AEGIS_AGENT_DEBUG") != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var a *Agent
	err := inVM(getenv)
	if err == nil {
		a, err = New(FromEnv(log, getenv))
	}
	if err == nil {
		log.Info("the agent begins", logattr.Version(buildinfo.Version()))
		err = a.Run(ctx)
	}
	if err != nil {
		log.Error("the agent ends", logattr.Err(err))
		return 1
	}
	return 0
}

// inVM refuses to make /workspace and serve on a computer that is somebody's own. Every program
// in a VM knows its instance.
func inVM(getenv func(string) string) error {
	if getenv("AEGIS_INSTANCE_ID") != "" || getenv("AEGIS_AGENT_WORKSPACE") != "" {
		return nil
	}
	return fault.New(fault.Invalid, "this is no VM of AegisVM: start it in one, with aegis instance start --kit agent").
		WithHint("or set AEGIS_AGENT_WORKSPACE to the folder that it may use here")
}
