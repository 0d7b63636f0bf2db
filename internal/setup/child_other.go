//go:build !linux

package setup

import (
	"context"
	"syscall"
)

// childAttr returns the attributes of a program of which all can be asked to stop.
func childAttr(context.Context, bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
