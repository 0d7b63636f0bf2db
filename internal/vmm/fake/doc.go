// Package fake is a driver whose machines are goroutines. It keeps the whole
// contract of package vmm, and fails on command.
//
//	host := fake.NewHost(guest)       // what outlives a daemon
//	driver := host.Driver()           // what a daemon has
//	host.Inject(fake.Faults{...})     // from the next call on
//	host.VM("inst-1").Die("struck")   // at any moment
//	host.Restart()                    // the daemon dies; host.Driver() is the next one's
//
// Guest is the code inside: it is called once for each boot of a machine, gets the
// guest's ends of the byte pipe and of the network card, and ends the machine by
// returning. Its Port has the habits of a virtio-serial port, and the bad ones: one
// host at a time; what a host has written and the guest has not read is lost when
// the host goes, what the guest has written reaches the next host; nothing moves
// while the machine is paused. Code cannot be stopped as a vCPU can: a paused guest
// runs until it next touches one of its ports.
//
// A guest that is to come back from a saved machine says with Boot.OnSave what it
// wants to find in Boot.Memory. One that was restored begins when it is resumed.
// Disks have no content; ForkDisk makes overlays that are empty.
//
// All waiting is on channels, so that machines live in testing/synctest bubbles.
// Nothing is kept in Spec.Dir. What is saved is in real files, where it can be
// damaged.
package fake
