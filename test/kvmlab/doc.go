// Kvmlab runs tests on hardware virtualization where the host has none.
//
// QEMU emulates AMD's virtualization (SVM) as well as the rest of a CPU. The lab is a
// machine of AegisVM itself, in a home of its own, whose QEMU is asked for a CPU with SVM and
// whose kernel loads kvm-amd: in it /dev/kvm is what it is on real hardware, and slower. It
// proves that a driver's path works, and nothing about speed, or Intel's VMX.
//
//	host                      kvmlab: builds the lab's image from Debian's packages, compiles
//	                          the tests, makes the plan, starts the machine, prints the table
//	└─ the lab (QEMU, TCG)    kvmlab -inside: runs the plan's jobs one after the other, writes
//	   │                      what each test came to
//	   └─ VMs (KVM)           what the tests start
//
// The program is both ends. What goes in, the test home, programs and compiled tests, is a
// disk. They share a folder, /workspace in the lab: the plan goes in, logs and results come
// out as they are written, so that a lab that dies leaves what it knew.
//
// Tests build what their guests run, with go, which the lab has not: there the program is
// "go", too, and hands out what the host's end has built.
//
// Drivers other than QEMU are not in Debian. AEGIS_LAB_CLOUD_HYPERVISOR names the program of
// Cloud Hypervisor, AEGIS_LAB_LIBKRUN a folder with libkrun.so.1 and libkrunfw.so. What is not
// named is left out, and the table says so.
package main
