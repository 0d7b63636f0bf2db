package nfs

// The procedures of MOUNT version 3.
const (
	mountNull = iota
	mountMnt
	mountDump
	mountUmnt
	mountUmntAll
	mountExport
)

// mountstat3.
const (
	mountOK    = 0
	mountNoEnt = 2
)

// maxMountPath is MNTPATHLEN.
const maxMountPath = 1024

// mount answers calls of the MOUNT program. Nothing is remembered of who has mounted.
func (s *Server) mount(c call, args decoder, out *reply) {
	out.begin(c.xid, acceptSuccess)
	switch c.proc {
	case mountNull, mountUmntAll:
	case mountMnt:
		path := string(args.opaque(maxMountPath))
		if args.bad {
			out.begin(c.xid, acceptGarbage)
			return
		}
		s.mnt(path, out)
	case mountDump:
		out.flag(false)
	case mountUmnt:
		if args.opaque(maxMountPath); args.bad {
			out.begin(c.xid, acceptGarbage)
		}
	case mountExport:
		for _, v := range s.volumes {
			out.flag(true)
			out.text(v.name)
			out.flag(false) // for everybody who gets here
		}
		out.flag(false)
	default:
		out.begin(c.xid, acceptNoProcedure)
	}
}

// mnt answers with the root handle of an export.
func (s *Server) mnt(path string, out *reply) {
	for _, v := range s.volumes {
		if v.name == path {
			out.u32(mountOK)
			out.handle(v, v.top)
			out.u32(1)
			out.u32(authSys)
			return
		}
	}
	out.u32(mountNoEnt)
}
