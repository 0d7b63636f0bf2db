// Package guesttest is a guest without a VM: the real protocol server of package
// guest over scripted programs, and a pipe that misbehaves like a virtio-serial
// port. The in-memory driver and the tests of the host's end stand on it.
//
//	pipe := guesttest.NewPipe()
//	go guesttest.Serve(ctx, pipe.Device(), guesttest.Options{Magic: magic})
//	conn, err := pipe.Dial(ctx) // what vmm.Machine.DialGuest returns
package guesttest
