// Package host is what drivers have in common whose VMM is a process of this host:
// the process, by its pidfd; the unprivileged account it runs as; copies of files
// that the account may not read; the folder of its sockets, with the record by which
// a later daemon finds it again; and words about how it ended.
//
// All of it but the words is Linux only. A driver says
// what is in its folder and what its record holds. The package imports only vmm,
// leaves and the standard library.
package host
