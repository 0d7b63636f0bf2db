// Package instance is the core of AegisVM: what an instance is, which states it
// goes through, who keeps it awake, and in what order things are done to its
// machine.
//
// It decides and orders; it does not know how. What it needs of the world (a VMM
// driver, the link to a guest, disks) it declares as small interfaces in ports.go,
// and adapters implement them. It must not import adapters or edges.
package instance
