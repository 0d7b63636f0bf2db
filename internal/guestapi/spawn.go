package guestapi

import (
	"cmp"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/capability"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/size"
)

// How long nothing must hold a child of a run before it sleeps. Other children sleep as
// their parents do.
const (
	pauseAfter = time.Minute
	stopAfter  = 5 * time.Minute
)

func holderOf(v instance.View) capability.Holder {
	return capability.Holder{
		Rights: v.Spec.Rights(), Memory: v.Spec.Memory, VCPUs: v.Spec.VCPUs, Image: v.Spec.Image, Secrets: v.Spec.Secrets,
	}
}

// spawn answers POST /v1/instances.
func (s *Server) spawn(c *call) error {
	var req api.SpawnRequest
	if err := decode(c, &req, false); err != nil {
		return err
	}
	spec, err := s.childSpec(c.self, req)
	if err != nil {
		return err
	}
	create := s.conf.Instances.Create
	if req.Wait {
		create = s.conf.Instances.Launch
	}
	v, err := create(c.ctx(), spec)
	if v.ID != "" {
		s.conf.Log.InfoContext(c.ctx(), "child", logattr.Instance(v.ID), logattr.Parent(c.self.ID))
	}
	if err != nil {
		if v.ID == "" {
			return private(err, choosesOne(req), "the name or a port is taken")
		}
		return fault.Wrap(fault.KindOf(err), err, "the child %s did not start, and stays as it is", v.ID)
	}
	return answer(c.w, http.StatusCreated, childOf(v))
}

// choosesOne reports whether a request wants something that only one instance can have.
func choosesOne(req api.SpawnRequest) bool {
	return req.Handle != "" || slices.ContainsFunc(req.Exposes, func(e api.GuestExpose) bool { return e.PublicPort != 0 })
}

// childSpec says what a child is to be, or why it may not.
func (s *Server) childSpec(parent instance.View, req api.SpawnRequest) (instance.Spec, error) {
	h, p := holderOf(parent), parent.Spec
	folders, named, err := childFolders(parent, req.Workspace)
	if err != nil {
		return instance.Spec{}, err
	}
	if req.MemoryMB < 0 || req.MemoryMB > 1<<30 || req.VCPUs < 0 {
		return instance.Spec{}, fault.New(fault.Invalid, "a child of %d MB and %d vCPUs cannot be had", req.MemoryMB, req.VCPUs)
	}
	want := capability.Child{
		Memory: size.Bytes(req.MemoryMB) * size.MiB, VCPUs: req.VCPUs, Image: req.ImageRef, Workspace: named,
		Secrets: req.Secrets, Ports: len(req.Exposes), Rights: req.Capabilities,
	}
	rights, err := h.Grant(want)
	if err != nil {
		return instance.Spec{}, err
	}
	spec := instance.Spec{
		Parent: parent.ID, Capabilities: &rights, Handle: req.Handle, Command: req.Command, Workdir: req.Workdir, User: req.User,
		Env: req.Env, Secrets: req.Secrets, Image: cmp.Or(req.ImageRef, p.Image), Folders: folders,
		Memory: cmp.Or(want.Memory, h.DefaultMemory()), VCPUs: cmp.Or(want.VCPUs, h.DefaultVCPUs()),
		Egress:     p.Egress, // what the parent cannot reach its children cannot either
		PauseAfter: p.PauseAfter, StopAfter: p.StopAfter, IdlePolicy: p.IdlePolicy,
	}
	if spec.Image == p.Image { // that very one, whatever the name means by now
		spec.Base = p.Base
	}
	if p.Ephemeral {
		spec.PauseAfter, spec.StopAfter = pauseAfter, stopAfter
	}
	for _, e := range req.Exposes {
		x, err := s.exposeOf(e)
		if err != nil {
			return instance.Spec{}, err
		}
		spec.Expose = append(spec.Expose, x)
	}
	return spec, nil
}

// workspaceTarget is where guests have their workspaces.
const workspaceTarget = "/workspace"

// childFolders finds out which folder a guest means by the workspace of a child. named is the
// name of a workspace, which the parent needs a right to; a path is one in its own. Whether
// the folder is there, and no link, is seen when it is opened, each time.
func childFolders(parent instance.View, asked string) (folders instance.Folders, named string, err error) {
	own := parent.Spec.Folders
	var below string
	switch clean := path.Clean(asked); {
	case asked == "":
		return instance.Folders{}, "", nil
	case strings.ContainsRune(asked, 0):
		return folders, "", fault.New(fault.Invalid, "bad workspace %q", asked)
	case clean == workspaceTarget:
	case strings.HasPrefix(clean, workspaceTarget+"/"):
		below = strings.TrimPrefix(clean, workspaceTarget+"/")
	case path.IsAbs(asked), clean == "..", strings.HasPrefix(clean, "../"):
		return folders, "", fault.New(fault.Denied, "%q is not in this instance's workspace", asked).
			WithHint("a child works in %s, or in a folder below it", workspaceTarget)
	case clean == ".":
	case strings.Contains(asked, "/"):
		below = clean
	case asked == own.Workspace && own.Below == "": // by its name
	default:
		return instance.Folders{Workspace: asked}, asked, nil
	}
	if below != "" && !filepath.IsLocal(below) {
		return folders, "", fault.New(fault.Denied, "%q is not in this instance's workspace", asked)
	}
	folders = instance.Folders{Workspace: own.Workspace, Of: own.Of, Below: path.Join(own.Below, below), ReadOnly: own.ReadOnly}
	if own.Own() {
		folders.Of = parent.ID
	}
	return folders, "", nil
}
