// Package kit reads kits: descriptions of what an instance is made of, so that a user
// names one thing instead of ten options.
//
// A kit is a file NAME.json, the manifest: an image and programs that are brought into
// its VM, a command and capabilities, files that configure it with what they hold at
// first, and programs of the host that run beside each of its instances (sidecars). Find
// looks through a list of folders; the first that has a name wins. A kit that lacks a
// program, or whose manifest is wrong, is there all the same: it is broken, and says for
// want of what. No name in a manifest is a path, but for those of configuration files,
// which stay below the workspace.
//
// Config is the files that configure sidecars: kits/<handle>/ in the home, which no guest
// and nobody else on the host can read. The names of secrets that such a file asks for are
// told by SecretNames; their values are in no file.
//
// The package runs nothing: package sidecar does, and the daemon wires the two. It imports
// leaves only, so that `aegis kit list` works without a daemon.
package kit
