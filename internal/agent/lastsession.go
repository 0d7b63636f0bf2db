package agent

import (
	"encoding/json"
	"os"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
)

// cronChannel is where messages come that nobody has typed.
const cronChannel = "cron"

// lastSession is where a person wrote last: notifications go there. It is kept in a file,
// since it is asked for most when the machine has just been woken by a schedule.
type lastSession struct {
	path string
	mu   sync.Mutex // over the file too: it changes when a user changes the chat
	key  api.Session
	read bool
}

func (l *lastSession) get() (api.Session, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.load()
	return l.key, l.key != (api.Session{})
}

func (l *lastSession) load() {
	if l.read {
		return
	}
	l.read = true
	data, err := os.ReadFile(l.path)
	if err != nil || json.Unmarshal(data, &l.key) != nil {
		l.key = api.Session{} // nobody, until somebody writes
	}
}

// set remembers a session. What cannot be written is known until the agent ends.
func (l *lastSession) set(key api.Session) error {
	if key.Channel == cronChannel {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.load()
	if l.key == key {
		return nil
	}
	l.key = key
	data, err := json.Marshal(key)
	if err != nil {
		return err
	}
	return atomicfile.Write(l.path, data, 0o600)
}
