package nfs

import (
	"context"
	"log/slog"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// request is one call of an NFS procedure.
type request struct {
	s    *Server
	ctx  context.Context //nolint:containedctx // the request's own
	name string          // of the procedure
	call call
	args decoder
	out  *reply

	again bool // perhaps it was done before: see again.go
}

// procedure serves one procedure. It decodes its arguments, and returns before it does
// anything if args.bad is set then. What it writes to out is the answer, status first.
type procedure struct {
	name string
	do   func(r *request)
	// once marks what must not be done again when the guest repeats a request whose
	// answer it has lost.
	once bool
}

var table3 = [procedures]procedure{
	procNull:        {name: "NULL", do: func(*request) {}},
	procGetattr:     {name: "GETATTR", do: (*request).getattr},
	procSetattr:     {name: "SETATTR", do: (*request).setattr, once: true},
	procLookup:      {name: "LOOKUP", do: (*request).lookup},
	procAccess:      {name: "ACCESS", do: (*request).access},
	procReadlink:    {name: "READLINK", do: (*request).readlink},
	procRead:        {name: "READ", do: (*request).read},
	procWrite:       {name: "WRITE", do: (*request).write},
	procCreate:      {name: "CREATE", do: (*request).create, once: true},
	procMkdir:       {name: "MKDIR", do: (*request).mkdir, once: true},
	procSymlink:     {name: "SYMLINK", do: (*request).symlink, once: true},
	procMknod:       {name: "MKNOD", do: (*request).mknod, once: true},
	procRemove:      {name: "REMOVE", do: (*request).remove, once: true},
	procRmdir:       {name: "RMDIR", do: (*request).rmdir, once: true},
	procRename:      {name: "RENAME", do: (*request).rename, once: true},
	procLink:        {name: "LINK", do: (*request).link, once: true},
	procReaddir:     {name: "READDIR", do: (*request).readdir},
	procReaddirplus: {name: "READDIRPLUS", do: (*request).readdirplus},
	procFsstat:      {name: "FSSTAT", do: (*request).fsstat},
	procFsinfo:      {name: "FSINFO", do: (*request).fsinfo},
	procPathconf:    {name: "PATHCONF", do: (*request).pathconf},
	procCommit:      {name: "COMMIT", do: (*request).commit},
}

// answer does what a message asks for. It returns nil if there is nothing to say: the
// message is no call.
func (s *Server) answer(msg []byte) *reply {
	d := decoder{b: msg}
	c, ok := parseCall(&d)
	if !ok {
		return nil
	}
	buf := small.Get().(*buffer)
	out := &reply{encoder: encoder{buf.b[:0]}, buf: buf}
	switch {
	case c.badRPC || c.badCred:
		out.refuse(c)
	case c.program != programNFS && c.program != programMount:
		out.begin(c.xid, acceptNoProgram) // kernels probe for NFSACL and others
	case c.version != version3:
		out.badVersion(c.xid)
	case c.program == programMount:
		s.mount(c, d, out)
	case c.proc >= procedures:
		out.begin(c.xid, acceptNoProcedure)
	case table3[c.proc].once:
		if err := s.replays.once(c, msg, out, func(again bool) { s.run(c, d, out, again) }); err != nil {
			s.complain("note an answer", logattr.Err(err))
		}
	default:
		s.run(c, d, out, false)
	}
	return out
}

// run runs a procedure of NFS.
func (s *Server) run(c call, args decoder, out *reply, again bool) {
	p := table3[c.proc]
	r := &request{s: s, ctx: s.ctx, name: p.name, call: c, args: args, out: out, again: again}
	out.begin(c.xid, acceptSuccess)
	p.do(r)
	if r.args.bad {
		out.begin(c.xid, acceptGarbage)
		s.complain("request with arguments that cannot be read", slog.String("procedure", p.name))
	}
}

// handleArg reads a handle.
func (r *request) handleArg() []byte { return r.args.opaque(handleMax) }

// nameArg reads a name. One that is not plain is an error later, when the arguments
// are known to be whole.
func (r *request) nameArg() []byte { return r.args.opaque(maxPathArg) }

// maxPathArg bounds names and link targets in messages.
const maxPathArg = 4096

// object resolves a handle for as long as the request lasts.
func (r *request) object(handle []byte) (*object, error) {
	v, id, err := r.s.resolve(handle)
	if err != nil {
		return nil, err
	}
	o, err := v.open(r.ctx, id)
	if err != nil {
		return nil, err
	}
	return r.hold(o), nil
}

func (r *request) hold(o *object) *object {
	r.later(o.close)
	return o
}

// later has something done when the guest has its answer: to close the last descriptor
// of a file that was removed is to free its space, which takes as long as all else.
func (r *request) later(do func()) { r.out.after = append(r.out.after, do) }

// folder resolves the handle of a folder.
func (r *request) folder(handle []byte) (*object, error) {
	o, err := r.object(handle)
	if err != nil {
		return nil, err
	}
	if o.st.kind != typeFolder {
		return o, errNotDir
	}
	return o, nil
}

// entry is a name in a folder, as requests that change one have it.
type entryArg struct {
	handle []byte
	raw    []byte
}

func (r *request) entryArg() entryArg { return entryArg{handle: r.handleArg(), raw: r.nameArg()} }

// place resolves the folder of an entry in which something is to be changed. The
// folder is returned with errors too, if it is known.
func (r *request) place(e entryArg) (dir *object, name string, err error) {
	if dir, err = r.folder(e.handle); err != nil {
		return dir, "", err
	}
	if name, err = checkName(e.raw); err != nil {
		return dir, "", err
	}
	if dir.v.readOnly {
		return dir, "", errROFS
	}
	if !r.call.cred.may(dir.attr(), mayWrite|mayExecute) {
		return dir, "", errAccess
	}
	return dir, name, nil
}

// status writes how the request ended.
func (r *request) status(err error) {
	s := statusOf(err)
	if s == errIO {
		r.s.complain("request failed", slog.String("procedure", r.name), logattr.Err(err))
	}
	r.out.u32(uint32(s))
}

// told writes an answer's status, and what o is; o is nil where there is none. It
// reports whether more is to follow.
func (r *request) told(o *object, err error) bool {
	r.status(err)
	r.attrOf(o)
	return err == nil
}

// attrOf writes what o is, which may be nil.
func (r *request) attrOf(o *object) {
	if o == nil {
		r.out.postAttr(nil, nil)
		return
	}
	a := o.attr()
	r.out.postAttr(o.v, &a)
}

// changed is told for a request that changes o, which was before.
func (r *request) changed(o *object, before *stat, err error) bool {
	r.status(err)
	r.out.wcc(volumeOf(o), before, o.after())
	return err == nil
}

// after returns what o is now, or nil.
func (o *object) after() *attr {
	if o == nil || o.refresh() != nil {
		return nil
	}
	a := o.attr()
	return &a
}

// volumeOf is the volume of o; only its presence in a reply needs one.
func volumeOf(o *object) *volume {
	if o == nil {
		return nil
	}
	return o.v
}
