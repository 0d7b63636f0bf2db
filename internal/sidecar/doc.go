// Package sidecar runs programs of the host beside instances, one process for each
// program and instance, for as long as the instance is wanted: whether its VM runs or
// sleeps.
//
// # What a sidecar is given
//
// Its environment has the instance's secrets and
//
//	AEGIS_INSTANCE    the instance's handle, AEGIS_INSTANCE_ID its id
//	AEGIS_SOCKET      the daemon's socket, AEGIS_HOME its home
//	AEGIS_KIT_CONFIG  the path of its own file, if it has one
//	AEGIS_SECRETS_FD  the number of a descriptor, 3
//
// and a few variables of the daemon's own, such as PATH. From the descriptor it reads lines
// of JSON, {"secrets":{"NAME":"value"}}: the stored secrets that its file asks for, those
// of them that are stored. The first line comes at once; another whenever that has changed,
// by a change of the file or of a secret, and replaces the one before. The end of the
// descriptor means that the daemon is gone, and the sidecar ends. What it writes to stdout
// and stderr is lines of the instance's log.
//
// # Who ends it
//
// A sidecar that ends is started again, after a delay that doubles with each end soon after
// the start. One that is not wanted any more gets SIGTERM, and after a grace SIGKILL, as
// does all of its process group. A daemon that dies takes its sidecars with it: on Linux by
// the parent-death signal, elsewhere by the end of the descriptor. What is left all the same
// the next daemon ends before it starts any: each process is recorded on disk, with its
// time of start, for it may have gone and another may have its number. So there are never
// two.
//
// The package knows neither kits nor the core: the daemon tells it what to run.
package sidecar
