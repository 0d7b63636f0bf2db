package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/paths"
)

const usage = `aegis-gateway joins the agent in a VM to Telegram and webhooks. The daemon runs it for
instances of a kit that names it; docs/GATEWAY.md tells how it is configured.

It is given, in its environment:
  AEGIS_INSTANCE     the instance, by handle; AEGIS_INSTANCE_ID by id
  AEGIS_SOCKET       the daemon's socket; else that of AEGIS_HOME
  AEGIS_KIT_CONFIG   gateway.json; else that in AEGIS_KIT_DIR, or in kits/$AEGIS_INSTANCE of AEGIS_HOME
  AEGIS_SECRETS_FD   a descriptor with the secrets that gateway.json names; it ends with that
`

// Main runs the gateway as its environment says, and returns the exit status.
func Main(args []string, kinds ...Kind) int {
	switch {
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
		_, _ = io.WriteString(os.Stdout, usage) // who closes stdout does not read
		return 0
	case len(args) == 1 && args[0] == "--version":
		_, _ = io.WriteString(os.Stdout, "aegis-gateway "+buildinfo.Version()+"\n") // as above
		return 0
	case len(args) > 0:
		_, _ = fmt.Fprintf(os.Stderr, "aegis-gateway: it takes no arguments, such as %q\n", args[0])
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := run(ctx, log, os.LookupEnv, kinds)
	switch {
	case errors.Is(err, errDaemonGone):
		log.InfoContext(ctx, "gateway ends", logattr.Why(err.Error()))
	case err != nil:
		log.ErrorContext(ctx, "gateway cannot run", logattr.Err(err), hint(err))
		return 1
	}
	return 0
}

// run runs the gateway until ctx or its daemon ends.
func run(ctx context.Context, log *slog.Logger, env func(string) (string, bool), kinds []Kind) error {
	g, err := fromEnvironment(log, env)
	if err != nil {
		return err
	}
	g.Kinds = kinds
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	changed := make(chan struct{}, 1)
	var secrets *stored
	if text, ok := env(SecretsFD); ok {
		f, err := openSecrets(text)
		if err != nil {
			return err
		}
		secrets = newStored(changed)
		wg.Go(func() {
			secrets.read(log, f)
			cancel(errDaemonGone)
		})
		defer func() { _ = f.Close() }() // ends the read
	}
	log.InfoContext(ctx, "gateway begins", logattr.Version(buildinfo.Version()), logattr.Instance(g.Ref))
	g.Run(ctx, secrets, changed)
	if cause := context.Cause(ctx); errors.Is(cause, errDaemonGone) {
		return cause
	}
	return nil
}

var handleForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// fromEnvironment returns the Gateway that the environment describes.
func fromEnvironment(log *slog.Logger, env func(string) (string, bool)) (*Gateway, error) {
	home, err := paths.Default()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "no home").WithHint("set AEGIS_HOME")
	}
	ref, _ := env("AEGIS_INSTANCE")
	if !handleForm.MatchString(ref) {
		return nil, fault.New(fault.Invalid, "AEGIS_INSTANCE is %.60q, and names no instance", ref).
			WithHint("the daemon sets it; by hand: AEGIS_INSTANCE=my-agent aegis-gateway")
	}
	file := configFile(env, home, ref)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make the folder of gateway.json").By(fault.Host)
	}
	// What channels keep is of this instance: another of its name, or a copy with its files,
	// has a tether of its own.
	id, _ := env("AEGIS_INSTANCE_ID")
	if !handleForm.MatchString(id) {
		id = ref
	}
	state := filepath.Join(filepath.Dir(file), "state", id)
	socket, ok := env("AEGIS_SOCKET")
	if !ok || socket == "" {
		socket = home.Socket()
	}
	return &Gateway{Log: log, Agent: client.New(socket), Ref: ref, File: file, State: state, Env: env}, nil
}

// configFile returns where gateway.json is, or will be.
func configFile(env func(string) (string, bool), home paths.Home, ref string) string {
	if file, ok := env("AEGIS_KIT_CONFIG"); ok && file != "" {
		return file
	}
	if dir, ok := env("AEGIS_KIT_DIR"); ok && dir != "" {
		return filepath.Join(dir, "gateway.json")
	}
	return filepath.Join(string(home), "kits", ref, "gateway.json")
}
