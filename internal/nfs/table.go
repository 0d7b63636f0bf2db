package nfs

import (
	"slices"
	"strings"
	"sync"
)

// key is an inode while it lives.
type key struct{ dev, ino uint64 }

func (id ident) key() key { return key{id.dev, id.ino} }

// node is an inode that the guest has seen, and the names by which it was found.
type node struct {
	key  key
	gen  uint64
	sure bool // gen is known; a walk sees numbers only
	at   []spot

	children int    // spots of other nodes in this folder
	used     uint64 // when it was last asked for, in the table's time

	rec      record // what was recorded of it when its change time was recAt
	recAt    moment
	recKnown bool
}

// spot is a name in a folder.
type spot struct {
	parent *node
	name   string
}

// maxSpots bounds the names that are kept of a file with many links.
const maxSpots = 16

// table remembers where inodes are. What it says is a hint: whoever uses it compares
// what he finds. It is bounded; what has fallen out is found again by a walk.
type table struct {
	root *node
	max  int

	mu     sync.Mutex
	nodes  map[key]*node
	clock  uint64
	moving int           // renames under way
	moved  uint64        // renames that have ended
	still  chan struct{} // closed when moving is 0; nil while it is
}

func newTable(root ident, limit int) *table {
	n := &node{key: root.key(), gen: root.gen, sure: true}
	return &table{root: n, max: limit, nodes: map[key]*node{n.key: n}}
}

// lead is a path at which an inode may be.
type lead struct {
	spot spot
	path string
}

// leads returns where id may be, the last place first, and the number of renames that
// this knowledge is as old as.
func (t *table) leads(id ident) (leads []lead, age uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.get(id)
	if n == nil {
		return nil, t.moved
	}
	for _, s := range n.at {
		if p, ok := t.path(s); ok {
			leads = append(leads, lead{s, p})
		}
	}
	return leads, t.moved
}

// get returns the node of id, or nil. t.mu is held.
func (t *table) get(id ident) *node {
	n := t.nodes[id.key()]
	if n == nil || n.sure && n.gen != id.gen {
		return nil
	}
	t.clock++
	n.used = t.clock
	return n
}

// maxDepth bounds the folders on a path: names that are out of date may form a circle.
const maxDepth = 4096

// path returns where s is, below the root. t.mu is held.
func (t *table) path(s spot) (string, bool) {
	if s.parent == t.root {
		return s.name, true
	}
	names := []string{s.name}
	for n := s.parent; n != t.root; n = n.at[0].parent {
		if len(n.at) == 0 || len(names) == maxDepth {
			return "", false
		}
		names = append(names, n.at[0].name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/"), true
}

// folderPath returns where a folder is.
func (t *table) folderPath(n *node) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case n == t.root:
		return "", true
	case len(n.at) == 0:
		return "", false
	}
	return t.path(n.at[0])
}

// ident returns what is known of n's identity.
func (t *table) ident(n *node) (id ident, sure bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return ident{n.key.dev, n.key.ino, n.gen}, n.sure
}

// add notes that id was found as name in parent, and returns its node.
func (t *table) add(parent *node, name string, id ident) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id.key()]
	switch {
	case n == nil:
		t.makeRoom()
		n = &node{key: id.key(), gen: id.gen, sure: true}
		t.nodes[n.key] = n
	case n == t.root:
		return n
	case n.sure && n.gen != id.gen: // the number belongs to another inode now
		t.clear(n)
		n.gen, n.recKnown = id.gen, false
	default:
		n.gen, n.sure = id.gen, true
	}
	t.clock++
	n.used = t.clock
	t.put(n, spot{parent, name})
	return n
}

// hint notes that a walk has seen an inode of that number, and returns its node. Without
// room that is forgotten with the walk, unless it is wanted.
func (t *table) hint(parent *node, name string, k key, wanted bool) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[k]
	switch {
	case n == t.root:
		return n
	case n == nil && len(t.nodes) >= t.max && !wanted:
		return &node{key: k, at: []spot{{parent, name}}}
	case n == nil:
		n = &node{key: k}
		t.nodes[k] = n
	}
	t.put(n, spot{parent, name})
	return n
}

// put makes s the first place to look for n. t.mu is held.
func (t *table) put(n *node, s spot) {
	switch i := slices.Index(n.at, s); {
	case i == 0:
		return
	case i > 0:
		n.at = slices.Delete(n.at, i, i+1)
	default:
		s.parent.children++
		if len(n.at) == maxSpots {
			n.at[maxSpots-1].parent.children--
			n.at = n.at[:maxSpots-1]
		}
	}
	n.at = slices.Insert(n.at, 0, s)
}

// clear takes all names from n. t.mu is held.
func (t *table) clear(n *node) {
	for _, s := range n.at {
		s.parent.children--
	}
	n.at = nil
}

// forget notes that id is no longer name in parent.
func (t *table) forget(parent *node, name string, id ident) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.nodes[id.key()]; n != nil {
		t.drop(n, spot{parent, name})
	}
}

// drop takes one name from n, and n from the table with its last one. t.mu is held.
func (t *table) drop(n *node, s spot) {
	i := slices.Index(n.at, s)
	if i < 0 {
		return
	}
	s.parent.children--
	n.at = slices.Delete(n.at, i, i+1)
	if len(n.at) == 0 && n.children == 0 && n != t.root {
		delete(t.nodes, n.key)
	}
}

// makeRoom drops a node that was not used for long and has none below it. A sample is
// good enough: what was dropped is found again. t.mu is held.
func (t *table) makeRoom() {
	const sample = 32
	for len(t.nodes) >= t.max {
		var oldest *node
		seen := 0
		for _, n := range t.nodes { // in random order
			if n.children == 0 && n != t.root && (oldest == nil || n.used < oldest.used) {
				oldest = n
			}
			if seen++; seen == sample {
				break
			}
		}
		if oldest == nil {
			return // all of them folders; the next one tries again
		}
		t.clear(oldest)
		delete(t.nodes, oldest.key)
	}
}

// move tells of a rename under way. The returned function ends it, and calls update
// in between if that is not nil.
func (t *table) move() (done func(update func())) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moving++; t.moving == 1 {
		t.still = make(chan struct{})
	}
	return func(update func()) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if update != nil {
			update()
		}
		t.moved++
		if t.moving--; t.moving == 0 {
			close(t.still)
			t.still = nil
		}
	}
}

// settle waits until no rename is under way, and reports whether one has ended since
// age: what was not found then may be found now.
func (t *table) settle(age uint64) bool {
	for {
		t.mu.Lock()
		still, moved := t.still, t.moved
		t.mu.Unlock()
		if moved != age {
			return true
		}
		if still == nil {
			return false
		}
		<-still
	}
}

// renamed changes a node's place. Whatever was there before has lost that name. It is
// called by the function that move returned.
func (t *table) renamed(id ident, from, to spot, replaced *ident) {
	if replaced != nil {
		if n := t.nodes[replaced.key()]; n != nil && n.key != id.key() {
			t.drop(n, to)
		}
	}
	if n := t.nodes[id.key()]; n != nil && n != t.root {
		t.put(n, to)
		t.drop(n, from)
	}
}

// record returns what is known to be recorded of n, if it has not changed since.
func (t *table) record(n *node, changed moment) (record, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.rec, n.recKnown && n.recAt == changed
}

// setRecord notes what is recorded of n.
func (t *table) setRecord(n *node, rec record, changed moment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.rec, n.recAt, n.recKnown = rec, changed, true
}
