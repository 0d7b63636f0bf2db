package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// job is one run of a package's tests on one driver.
type job struct {
	Driver  string        // as the setting vmm names it
	Name    string        // of what is tested
	Package string        // folder in this module
	Pattern string        // of the tests to run; their names have no spaces
	Skip    string        // of those not to run, "" for none
	Timeout time.Duration // of all of them
}

func (j *job) String() string { return j.Driver + "/" + j.Name }

// log and end name the files that tell what the job printed, and, once it has ended, with what
// error.
func (j *job) log() string { return strings.ReplaceAll(j.String(), "/", "-") + ".log" }
func (j *job) end() string { return strings.ReplaceAll(j.String(), "/", "-") + ".end" }

// plan is what the end in the lab is told.
type plan struct {
	Jobs    []job
	LeftOut []string // driver and why, for people
}

// endToEnd is the part of the e2e suite that shows what a driver does for a user: run, exec,
// pause, hibernate and wake, fork, router, workspace, and adoption after kill -9. The
// heavier tests find out about the daemon, which is the same on all drivers.
var endToEnd = []string{
	"TestHello", "TestInstance", "TestHibernate", "TestClones", "TestPorts", "TestForkContract",
	"TestWorkspace", "TestKilledDaemon",
}

// candidate is a driver that the lab knows.
type candidate struct {
	driver   string
	pkg      string // of the driver
	contract string // pattern of the tests of it that need its VMM
	variable string // says where the VMM is; "" is one that the lab's image has
	lacks    string // what the driver cannot do, as a pattern of end-to-end tests
}

var candidates = []candidate{
	{driver: "qemu", pkg: "internal/vmm/qemu", contract: "^(TestConformance|TestProbe|TestTrial|TestDisks|TestConfinement|TestDaemonKilled|TestHung|TestWhole|TestLargerDisk|TestResumedAtOnce)$"},
	{driver: "cloud-hypervisor", pkg: "internal/vmm/cloudhypervisor", contract: ".", variable: "AEGIS_LAB_CLOUD_HYPERVISOR"},
	{driver: "libkrun", pkg: "internal/vmm/libkrun", contract: ".", variable: "AEGIS_LAB_LIBKRUN", lacks: "^(TestHibernate|TestClones|TestForkContract)$"},
}

// makePlan decides what is run, and tells what is not. root is that of the module.
func makePlan(root, only string) plan {
	p := plan{}
	for _, c := range candidates {
		if why := c.missing(root); why != "" {
			p.LeftOut = append(p.LeftOut, c.driver+": "+why)
			continue
		}
		for _, j := range []job{
			{Driver: c.driver, Name: "contract", Package: c.pkg, Pattern: c.contract, Timeout: 10 * time.Minute},
			{Driver: c.driver, Name: "e2e", Package: "test/e2e", Pattern: "^(" + strings.Join(endToEnd, "|") + ")$", Skip: c.lacks, Timeout: 15 * time.Minute},
		} {
			if !strings.Contains(j.String(), only) {
				p.LeftOut = append(p.LeftOut, j.String()+": not asked for")
				continue
			}
			p.Jobs = append(p.Jobs, j)
		}
		if c.lacks != "" {
			p.LeftOut = append(p.LeftOut, c.driver+"/e2e "+strings.Trim(c.lacks, "^()$")+": the driver cannot save")
		}
	}
	return p
}

// missing tells why a driver cannot be tried, or "".
func (c *candidate) missing(root string) string {
	if tests, _ := filepath.Glob(filepath.Join(root, c.pkg, "*_integration_test.go")); len(tests) == 0 { // the pattern is good
		return "there is no such driver in this tree"
	}
	if c.variable == "" {
		return ""
	}
	path := os.Getenv(c.variable)
	if path == "" {
		return "not here; " + c.variable + " says where it is"
	}
	if _, err := os.Stat(path); err != nil {
		return c.variable + ": " + err.Error()
	}
	return ""
}
