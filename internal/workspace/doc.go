// Package workspace knows which folders of the host an instance works in, serves them
// to its guest, and reads and writes files in them for the host.
//
// A workspace is named (a folder below data/workspaces, made on demand and kept until
// somebody removes it), a path of the host's (which exists), or automatic (a folder
// that belongs to the instance and goes with it). Other folders may be mounted beside
// it.
//
//	ws, err := store.Open(id, spec)
//	go ws.Serve(ln)                   // port 2049 of the VM's gateway
//	err = link.Mount(ctx, ws.Mount()) // PID 1 mounts what is served
//	...
//	err = ws.Close()
//
// Files is the host's side: a tree, reading, writing, and blobs. A guest plants what it
// likes in its workspace; nothing here follows it out.
//
// The folders belong to the user. The package removes automatic ones, and nothing else.
package workspace
