package nfs

import (
	"cmp"
	"slices"
	"sync"
)

// A listing goes to the guest in pieces, while the folder changes. So that each name
// that stays is told once and only once, names have an order that nothing changes: that
// of their hashes, which are the cookies. Host file systems promise less.

// listed is one name in a listing.
type listed struct {
	entry

	cookie uint64
}

// The first cookies stand for what every folder has.
const (
	cookieSelf   = 1
	cookieParent = 2
	firstCookie  = 3
)

// cookieOf hashes a name (FNV-1a). Cookies are positive numbers of 62 bits: some
// programs take them for signed offsets.
func cookieOf(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return max(h>>2, firstCookie)
}

func compareListed(a, b listed) int {
	return cmp.Or(cmp.Compare(a.cookie, b.cookie), cmp.Compare(a.name, b.name))
}

// maxListed is how many names of one folder are held at once.
const maxListed = 1 << 16

// window is what comes after a cookie in a folder, as far as it is held.
type window struct {
	id           ident
	mtime, ctime moment
	after        uint64
	names        []listed
	whole        bool // there are no more
}

// from returns the names after the cookie, if the window can tell.
func (w *window) from(id ident, st stat, cookie uint64) ([]listed, bool) {
	if w.id != id || w.mtime != st.mtime || w.ctime != st.ctime || cookie < w.after {
		return nil, false
	}
	i, _ := slices.BinarySearchFunc(w.names, cookie, func(l listed, c uint64) int {
		if l.cookie <= c {
			return -1
		}
		return 1
	})
	return w.names[i:], w.whole || i < len(w.names)
}

// readWindow lists the folder dir after the cookie, as much as limit.
func readWindow(dir *object, cookie uint64, limit int) (*window, error) {
	w := &window{id: dir.st.id, mtime: dir.st.mtime, ctime: dir.st.ctime, after: cookie, whole: true}
	err := dir.unlocked(func() error {
		w.names = nil
		return dir.entries(func(e entry) bool {
			if c := cookieOf(e.name); c > cookie {
				w.names = append(w.names, listed{e, c})
			}
			if len(w.names) == 2*limit {
				slices.SortFunc(w.names, compareListed)
				w.names, w.whole = w.names[:limit], false
			}
			return true
		})
	})
	slices.SortFunc(w.names, compareListed)
	if len(w.names) > limit {
		w.names, w.whole = w.names[:limit], false
	}
	return w, err
}

// lists keeps the windows of listings under way.
type lists struct {
	limit int // names in one window

	mu      sync.Mutex
	windows []*window // the last used first
}

const maxWindows = 4

// read returns the names after the cookie in dir, in the window in which they are.
func (l *lists) read(dir *object, cookie uint64) (names []listed, w *window, err error) {
	if cookie >= firstCookie { // a listing that begins sees the folder as it is
		l.mu.Lock()
		for _, w := range l.windows {
			if names, ok := w.from(dir.st.id, dir.st, cookie); ok {
				l.mu.Unlock()
				return names, w, nil
			}
		}
		l.mu.Unlock()
	}
	w, err = readWindow(dir, cookie, l.limit)
	if err != nil {
		return nil, nil, err
	}
	return w.names, w, nil
}

// keep keeps w for the rest of its listing, or forgets it when that has been told.
func (l *lists) keep(w *window, rest bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.windows = slices.DeleteFunc(l.windows, func(old *window) bool { return old.id == w.id })
	if rest {
		l.windows = slices.Insert(l.windows, 0, w)
	}
	if len(l.windows) > maxWindows {
		l.windows = l.windows[:maxWindows]
	}
}
