//go:build !linux

package kernel

import "errors"

func hostRelease() (string, error) { return "", errors.New("this host does not run Linux") }
