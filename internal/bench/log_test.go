package bench

import (
	"errors"
	"strings"
	"testing"
)

const logged = `{"time":"2026-01-02T03:04:05.000Z","level":"INFO","msg":"state","instance":"inst-1","handle":"other","from":"running","to":"pausing"}
{"time":"2026-01-02T03:04:05.001Z","level":"DEBUG","msg":"saved","instance":"inst-1","took":1}
{"time":"2026-01-02T03:04:05.100Z","level":"INFO","msg":"state","instance":"inst-2","handle":"server","from":"running","to":"pausing"}
{"time":"2026-01-02T03:04:05.110Z","level":"INFO","msg":"state","instance":"inst-2","handle":"server","from":"pausing","to":"saving"}
{"time":"2026-01-02T03:04:05.119Z","level":"DEBUG","msg":"saved","instance":"inst-1","took":1}
`

func TestSavePause(t *testing.T) {
	if _, err := savePauseIn(strings.NewReader(logged), "server"); !errors.Is(err, errNotLogged) {
		t.Errorf("a save of another instance counts: %v", err)
	}
	all := logged + `{"time":"2026-01-02T03:04:05.1205Z","level":"DEBUG","msg":"saved","instance":"inst-2","took":1}` + "\n"
	if got, err := savePauseIn(strings.NewReader(all), "server"); err != nil || got != 20.5 {
		t.Errorf("%v ms, %v", got, err)
	}
	if _, err := savePauseIn(strings.NewReader("no JSON\n"), "server"); err == nil {
		t.Error("garbage is no error")
	}
}
