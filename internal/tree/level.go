package tree

import (
	"archive/tar"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// level is a folder on the way to the current entry.
type level struct {
	name string
	root *os.Root
	head *tar.Header // what to make of it in the end; nil if it existed before
}

// descend makes path the current folder and returns it. What is not there is made.
// Folders that are left get their final mode and times.
func (u *unpacker) descend(path []string, name string) (*os.Root, error) {
	same := 0
	for same < len(path) && same+1 < len(u.stack) && u.stack[same+1].name == path[same] {
		same++
	}
	if err := u.pop(same + 1); err != nil {
		return nil, err
	}
	for _, part := range path[same:] {
		if err := u.push(part, nil, name); err != nil {
			return nil, err
		}
	}
	return u.top(), nil
}

func (u *unpacker) top() *os.Root { return u.stack[len(u.stack)-1].root }

// push enters a folder, which is made if there is none.
func (u *unpacker) push(part string, head *tar.Header, name string) error {
	dir := u.top()
	_, err := dir.Lstat(part)
	mode := os.FileMode(0o755)
	switch {
	case isMissing(err):
		if head != nil {
			mode = 0o700 // until it is complete
		}
		if err := dir.Mkdir(part, mode); err != nil {
			return at(name, err)
		}
	case err != nil:
		return at(name, err)
	default:
		head = nil
	}
	root, err := enter(dir, part, name)
	if err != nil {
		return err
	}
	u.stack = append(u.stack, &level{name: part, root: root, head: head})
	return nil
}

// enter opens a folder, but no symlink to one.
func enter(dir *os.Root, part, name string) (*os.Root, error) {
	fi, err := dir.Lstat(part)
	if err != nil {
		return nil, at(name, err)
	}
	if !fi.IsDir() {
		return nil, refuse("%q would go through %s", name, kindOf(fi.Mode()))
	}
	root, err := dir.OpenRoot(part)
	if err != nil {
		return nil, at(name, err)
	}
	now, err := root.Stat(".")
	if err != nil || !os.SameFile(fi, now) {
		_ = root.Close() // only read
		return nil, refuse("%q: its folder was exchanged meanwhile", name)
	}
	return root, nil
}

// folder unpacks a folder. One that exists stays as it is, and takes in what comes.
func (u *unpacker) folder(path []string, h *tar.Header) error {
	last := len(path) - 1
	if len(u.stack) > len(path) && slices.EqualFunc(path, u.stack[1:len(path)+1], func(p string, l *level) bool { return p == l.name }) {
		return nil // it is open: it came before, or what is in it did
	}
	if _, err := u.descend(path[:last], h.Name); err != nil {
		return err
	}
	return u.push(path[last], h, h.Name)
}

// pop leaves folders until n levels are left.
func (u *unpacker) pop(n int) error {
	for len(u.stack) > n {
		last := len(u.stack) - 1
		l := u.stack[last]
		u.stack = u.stack[:last]
		err := u.complete(l)
		_ = l.root.Close() // nothing was written through it
		if err != nil {
			return err
		}
	}
	return nil
}

// drop lets go of all levels but the target, after an error.
func (u *unpacker) drop() {
	for _, l := range u.stack[1:] {
		_ = l.root.Close() // see pop
	}
}

// complete gives a folder the owner, mode and times that it is to have.
func (u *unpacker) complete(l *level) error {
	if l.head == nil {
		return nil
	}
	f, err := l.root.Open(".")
	if err != nil {
		return at(l.head.Name, err)
	}
	defer func() { _ = f.Close() }() // only read
	if err := u.own(f, l.head); err != nil {
		return err
	}
	return setTime(u.top(), l.name, l.head)
}

// walk opens a folder below the target without leaving the current one.
func (u *unpacker) walk(path []string, name string) (*os.Root, error) {
	dir, err := u.target.dir.OpenRoot(".")
	for _, part := range path {
		if err != nil {
			break
		}
		var next *os.Root
		next, err = enter(dir, part, name)
		_ = dir.Close() // only read
		dir = next
	}
	if err != nil {
		return nil, err
	}
	return dir, nil
}

// linkAt gives a file another name in another folder.
func linkAt(from *os.Root, old string, to *os.Root, name string) error {
	a, err := from.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }() // only read
	b, err := to.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only read
	return unix.Linkat(int(a.Fd()), old, int(b.Fd()), name, 0)
}
