package agent

import (
	"reflect"
	"slices"
	"sync"

	"github.com/xfeldman/aegisvm/internal/agent/settings"
	"github.com/xfeldman/aegisvm/internal/agent/tool"
)

// bench keeps the newest kit from one message to the next: to make one, and to encode its
// tools for the model, is most of what stands between a machine's wake and the question to
// the model. The zero value is ready.
type bench struct {
	mu     sync.Mutex
	have   bool
	last   kit
	of     *settings.Settings
	theirs []tool.Tool
}

// kit returns the kit for settings and the tools of servers: the one before, if these are the
// same, else what outfit makes.
func (b *bench) kit(s *settings.Settings, theirs []tool.Tool, outfit func(*settings.Settings, []tool.Tool) (kit, error)) (kit, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.have && b.of == s && slices.EqualFunc(b.theirs, theirs, sameTool) {
		return b.last, nil
	}
	k, err := outfit(s, theirs)
	if err != nil {
		return k, err
	}
	b.have, b.last, b.of, b.theirs = true, k, s, theirs
	return k, nil
}

// sameTool reports whether two tools are one: a server that was asked anew has other ones.
func sameTool(a, b tool.Tool) bool {
	return a.Name == b.Name && reflect.ValueOf(a.Schema).UnsafePointer() == reflect.ValueOf(b.Schema).UnsafePointer()
}
