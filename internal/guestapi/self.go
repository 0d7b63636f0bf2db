package guestapi

import (
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/capability"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// getSelf answers GET /v1/self.
func (s *Server) getSelf(c *call) error {
	live := 0
	for _, v := range s.conf.Instances.Children(c.self.ID) {
		if v.State != instance.Stopped || v.Hibernated {
			live++
		}
	}
	v := c.self
	return answer(c.w, http.StatusOK, api.Self{
		ID: c.id(), Handle: v.Spec.Handle, State: v.State.Wire(), Image: v.Spec.Image, ParentID: string(v.Spec.Parent),
		Endpoints: endpointsOf(v), MemoryMB: v.Spec.Memory.MiB(), VCPUs: v.Spec.VCPUs,
		Capabilities: v.Spec.Rights(), Children: live, LeaseStatus: leaseOf(v.Lease),
	})
}

// defaultLease is how long an instance is kept awake that does not say.
const defaultLease = time.Minute

// keepalive answers POST /v1/self/keepalive.
func (s *Server) keepalive(c *call) error {
	req := api.KeepaliveRequest{}
	if err := decode(c, &req, true); err != nil {
		return err
	}
	ttl := defaultLease
	if req.TTLMS != 0 {
		if req.TTLMS < 0 || req.TTLMS > instance.MaxLease.Milliseconds() {
			return fault.New(fault.Invalid, "ttl_ms cannot be %d", req.TTLMS).
				WithHint("it is %d to %d, and can be renewed", instance.MinLease.Milliseconds(), instance.MaxLease.Milliseconds())
		}
		ttl = time.Duration(req.TTLMS) * time.Millisecond
	}
	l, err := s.conf.Instances.Lease(c.ctx(), c.id(), ttl, req.Reason)
	if err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, leaseOf(l))
}

// endKeepalive answers DELETE /v1/self/keepalive.
func (s *Server) endKeepalive(c *call) error {
	if err := s.conf.Instances.EndLease(c.ctx(), c.id()); err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, api.LeaseStatus{})
}

// expose answers POST /v1/self/expose.
func (s *Server) expose(c *call) error { return s.answerExposed(c, c.self) }

// unexpose answers DELETE /v1/self/expose/{port}.
func (s *Server) unexpose(c *call) error { return s.answerUnexposed(c, c.self) }

// restart answers POST /v1/self/restart. The caller will not be there to hear how it went.
func (s *Server) restart(c *call) error {
	if err := decode(c, &struct{}{}, true); err != nil {
		return err
	}
	err := answer(c.w, http.StatusAccepted, api.Outcome{Status: "restarting", ID: c.id()})
	_ = http.NewResponseController(c.w).Flush() // it is the caller's last chance
	s.wg.Go(func() {
		if err := s.conf.Instances.Restart(s.ctx, c.id()); err != nil {
			s.conf.Log.Warn("restart by the guest", logattr.Instance(c.self.ID), logattr.Err(err))
		}
	})
	return err
}

// maxSnapshots is how many snapshots of an instance may be there for it to take another.
const maxSnapshots = 8

// snapshot answers POST /v1/self/snapshot.
func (s *Server) snapshot(c *call) error {
	var req api.SnapshotRequest
	if err := decode(c, &req, true); err != nil {
		return err
	}
	if !c.self.Spec.Rights().Spawn {
		return fault.New(fault.Denied, "this instance may not take snapshots").
			WithHint("the capability spawn decides; it is given on the host: aegis instance start --capabilities FILE")
	}
	done, err := take(c.peer.keeping, "snapshot")
	if err != nil {
		return err
	}
	defer done()
	all, err := s.conf.Instances.Snapshots(c.ctx())
	if err != nil {
		return err
	}
	n := 0
	for _, snap := range all {
		if snap.Origin.ID == c.self.ID {
			n++
		}
	}
	if n >= maxSnapshots {
		return fault.New(fault.Denied, "there are %d snapshots of this instance already", n).WithHint("on the host: aegis snapshot delete NAME")
	}
	snap, err := s.conf.Instances.Snapshot(c.ctx(), c.id(), req.Name)
	if err != nil {
		return err
	}
	return answer(c.w, http.StatusCreated, api.Snapshot{
		ID: string(snap.ID), Name: snap.Name, Size: int64(snap.Size), CreatedAt: snap.Created.UTC(), InstanceID: c.id(), Handle: c.self.Spec.Handle,
		Command: c.self.Spec.Command, MemoryMB: c.self.Spec.Memory.MiB(), VCPUs: c.self.Spec.VCPUs, Cold: snap.Cold,
	})
}

// forkSelf answers POST /v1/self/fork: the copies are children of the caller.
func (s *Server) forkSelf(c *call) error {
	h := holderOf(c.self)
	rights, err := h.Grant(capability.Child{Memory: h.Memory, VCPUs: h.VCPUs, Ports: len(c.self.Spec.Expose)})
	if err != nil {
		return err
	}
	var secrets []string // of later execs: those that may be handed on
	for _, name := range c.self.Spec.Secrets {
		if capability.Has(h.Rights.AllowedSecrets, name) {
			secrets = append(secrets, name)
		}
	}
	return s.fork(c, c.self, instance.ForkSpec{Parent: c.self.ID, Rights: rights, Secrets: secrets})
}
