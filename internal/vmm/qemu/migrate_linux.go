package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// A state goes to and from QEMU through a pipe, in both directions and whatever
// its size: QEMU then opens nothing, what it writes is summed and compressed on
// its way, and the end of the pipe tells that QEMU is done with it, for which
// there is no other event.

const (
	// pipeName is the name of the pipe within QEMU.
	pipeName = "state"
	// pipeSize is the most that the kernel gives everybody.
	pipeSize = copySize
	// bandwidth lifts QEMU's limit of 128 MB/s, which is for networks.
	bandwidth = 8 << 30
)

// newPipe makes a pipe for a state.
func newPipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	// A smaller one only takes longer.
	_, _ = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	return r, w, nil
}

// capability is an argument of migrate-set-capabilities.
type capability struct {
	Name string `json:"capability"`
	On   bool   `json:"state"`
}

// migrate starts a migration over theirs, QEMU's end of a pipe, which it closes
// here: "migrate" sends, "migrate-incoming" receives. Memory that is shared is left out
// unless the state is to be whole.
func (q *qmp) migrate(ctx context.Context, command string, whole bool, theirs *os.File) error {
	defer closeAll(theirs)
	caps := []capability{{"events", true}, {ignoreShared, !whole}}
	if err := q.execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": caps}, nil); err != nil {
		return err
	}
	if params := parameters(command, whole); len(params) > 0 {
		if err := q.execute(ctx, "migrate-set-parameters", params, nil); err != nil {
			return err
		}
	}
	if err := q.executeWith(ctx, "getfd", map[string]any{"fdname": pipeName}, theirs, nil); err != nil {
		return err
	}
	q.newMigration()
	if err := q.execute(ctx, command, map[string]any{"uri": "fd:" + pipeName}, nil); err != nil {
		// QEMU keeps the pipe of a migration that it refuses. A QEMU that is gone has
		// closed it.
		_ = q.execute(context.WithoutCancel(ctx), "closefd", map[string]any{"fdname": pipeName}, nil)
		return err
	}
	return nil
}

// parameters returns what is set before a migration. A machine that was loaded announces
// its network card once, not five times: nobody but us is on its wire, and the guest has to
// do it. With none at all QEMU 7.2 crashes when the guest turns itself off.
func parameters(command string, whole bool) map[string]any {
	params := map[string]any{}
	if whole {
		params["max-bandwidth"] = bandwidth
	}
	if command == "migrate-incoming" {
		params["announce-rounds"] = 1
	}
	return params
}

var errMigration = errors.New("QEMU did not say why")

// finishMigration waits for the end of a migration, which must be the good one.
func (q *qmp) finishMigration(ctx context.Context) error {
	status, err := q.awaitMigration(ctx)
	if err != nil || status == migrationDone {
		return err
	}
	var info struct {
		Desc string `json:"error-desc"`
	}
	if err := q.execute(ctx, "query-migrate", nil, &info); err == nil && info.Desc != "" {
		return fmt.Errorf("migration %s: %s", status, info.Desc)
	}
	return fmt.Errorf("migration %s: %w", status, errMigration)
}

// storeError explains why a saved machine could not be written.
func storeError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.Wrap(fault.Exhausted, err, "save the machine").By(fault.Host).
			WithHint("free some space where AEGIS_HOME is: df -h")
	}
	return fault.Wrap(fault.Unavailable, err, "save the machine").By(fault.Host).WithHint("aegis doctor")
}
