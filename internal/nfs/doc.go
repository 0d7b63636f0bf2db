// Package nfs serves folders of the host to the kernel of one guest: NFS version 3
// and its MOUNT protocol (RFC 1813) over ONC RPC on TCP (RFC 5531).
//
//	s, err := nfs.New(nfs.Options{Log: log}, nfs.Export{Name: "/", Dir: dir, ID: 1})
//	err = s.Serve(ln) // a listener on the gateway of the VM's network
//	err = s.Close()
//
// # Handles
//
// A handle says which inode it is (inode, time of birth, device) and nothing of where
// the inode lies. Where is remembered for each inode in a table of names, and every
// use of a handle resolves the path anew and compares what it finds. So renames on
// either side, and a new server over the same folder, leave handles as they are. What
// is not where the table says is looked for: in the folder where it was, then by a walk
// over the tree, which serves all that are missing at once. A guest can trigger walks;
// they are bounded, and take a fifth of the time at most.
//
// The handle, file number and file system number of an export's root are constant: a
// guest that has it mounted may wake with another folder behind it.
//
// # Containment
//
// Nothing outside of an export is read or written. Paths are resolved below the
// export's own descriptor; the kernel is told to follow no link, to leave by no "..",
// and to cross no mount. Symlinks are only ever read. Names that are not plain names
// are refused. Device nodes are not made, and set-user-ID bits never get onto the host.
//
// # Owners
//
// The user that the export's files belong to (the daemon's own, or where the daemon is
// root the owner of the folder) is root in the guest. Other owners, and modes that the
// host cannot or must not have, are recorded in the extended attribute user.aegis.guest
// of the file, or in memory where there are none. Who may do what in the guest is
// decided by what the guest sees, as on any file system. See record.
//
// # Durability
//
// The server and its only client live on the same host. What is answered is in the
// host's page cache: the death of the daemon loses nothing. COMMIT and stable WRITEs
// are synced, but for the first write of a file that was just made, which is what a
// close() sends: that is synced within a second, and before anything that is synced
// later. See syncer.
//
// # Goroutines
//
// Each connection reads a request in one goroutine, which starts the next reader and
// works; replies go out as they are ready. Requests and memory are bounded. Close waits
// for all.
//
// A Server is for one life of a VM: it remembers answers to requests, and a guest that
// is set back in time would send the same ones again.
//
// The package imports nothing of AegisVM but logattr.
package nfs
