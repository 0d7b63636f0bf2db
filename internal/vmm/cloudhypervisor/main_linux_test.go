package cloudhypervisor

import (
	"os"
	"testing"
)

// scratch is a folder that tests share, or "".
var scratch string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "--api-socket" || os.Args[1] == "--version") {
		os.Exit(play(os.Args[1:]))
	}
	code := m.Run()
	if scratch != "" {
		_ = os.RemoveAll(scratch)
	}
	os.Exit(code)
}
