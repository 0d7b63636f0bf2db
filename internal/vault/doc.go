// Package vault keeps secrets: it seals them for the store, and opens them for the
// core when a program or an exec is to have them.
//
// Values are sealed with AES-256-GCM under a random nonce, the secret's name being
// additional data, so that no row passes for another. The key is not the master key
// itself but derived from it (HKDF-SHA256) for this one purpose; other purposes derive
// others. Each row names the key it is sealed with by an id, also derived, so that a
// wrong master key and a damaged row are told apart.
//
// The master key is a file of 32 random bytes, 0600. It is made with the first secret,
// and never while there are secrets that it could not open. It is read whenever it is
// needed and kept in no variable: who puts the right file back need not restart the
// daemon.
//
// A rotation makes the next key beside the old one (master.key.next), seals all rows
// anew in one transaction of the database, and gives the next key the name of the old
// one. Wherever it is killed, each row's key is in one of the two files; the rows say
// which is to stay, and Recover, or the next write, tidies up. Readers use both.
//
// The package implements instance.Secrets and what httpapi asks of secrets. The rows
// are kept by whoever implements Rows (package store). It must not import adapters.
package vault
