// Package store keeps the daemon's state in one SQLite database, data/aegis.db.
//
// It records intent (which instances there are and what their users want of them),
// and secrets as package vault has sealed them; facts about running machines are
// asked of the drivers. It is the only shared mutable thing of the daemon. Writes are
// durable when they return: journal in WAL mode with synchronous=FULL, so they belong
// to changes of intent and never on the path on which a machine wakes.
//
// The schema is a list of migrations, applied in order and never changed once
// released; the database's user_version says how many it has. A database that is
// newer than the program is refused.
package store
