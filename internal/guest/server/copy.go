package server

import (
	"context"
	"slices"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/guest/files"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// abilities returns the optional parts of the protocol that this guest has, sorted.
func (s *Server) abilities() []string {
	have := []string{"dial", guestproto.AbilityMount}
	if s.conf.Changes != nil {
		have = append([]string{guestproto.AbilityChanges}, have...)
	}
	if s.conf.Files != "" {
		have = append([]string{guestproto.AbilityCopy}, have...)
	}
	if s.conf.API != nil {
		have = append(have, guestproto.AbilityAPI)
	}
	slices.Sort(have)
	return have
}

// copy reads or writes files for the host.
func (s *session) copy(ctx context.Context, stream *yamux.Stream, req *guestproto.Copy) {
	if s.conf.Files == "" || req == nil {
		_ = refuse(stream, guestproto.CodeUnsupported, "a copy")
		return
	}
	c, err := s.open(*req)
	if err != nil {
		_ = refuseErr(stream, err)
		return
	}
	defer c.Close() //nolint:errcheck // folders that were read
	if accept(stream, guestproto.StreamReply{}) != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(past) })
	defer stop()
	c.Run(stream)
}

// open finds what a copy is of.
func (s *session) open(req guestproto.Copy) (*files.Copy, error) {
	if !req.Changes {
		return files.Open(s.conf.Files, req)
	}
	if s.conf.Changes == nil {
		return nil, &guestproto.Error{Code: guestproto.CodeUnsupported, Msg: "a copy of the changes"}
	}
	path, release, err := s.conf.Changes()
	if err != nil {
		return nil, err
	}
	return files.OpenChanges(path, release)
}
