package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// job is one run of a package's tests on one driver.
type job struct {
	Driver  string // as the setting vmm names it
	Name    string // of what is tested
	Package string // folder in this module
	Tests   []string
	Skip    string        // pattern of those of them that are not to run, "" for none
	Timeout time.Duration // of all of them
}

// pattern matches its tests, and nothing else.
func (j *job) pattern() string { return "^(" + strings.Join(j.Tests, "|") + ")$" }

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

// limit is how long its jobs may take together.
func (p *plan) limit() time.Duration {
	all := time.Duration(0)
	for i := range p.Jobs {
		all += p.Jobs[i].Timeout + jobGrace
	}
	return all
}

// endToEnd is the part of the e2e suite that shows what a driver does for a user: run, exec,
// pause, hibernate and wake, fork, router, workspace, and adoption after kill -9. The
// heavier tests find out about the daemon, which is the same on all drivers.
var endToEnd = []string{
	"TestHello", "TestInstance", "TestHibernate", "TestClones", "TestPorts", "TestForkContract",
	"TestWorkspace", "TestKilledDaemon",
}

// elsewhere is what of them is not about the driver: the lab's ordinary user may not use KVM.
const elsewhere = "^TestWorkspace$/^ordinary_user$"

// candidate is a driver that the lab knows.
type candidate struct {
	driver   string
	pkg      string // of the driver, whose tests that boot VMs all run, but
	skip     string // those that match this, "" for none, because
	because  string
	variable string // says where the VMM is; "" is one that the lab's image has
	lacks    string // what the driver cannot do, as a pattern of end-to-end tests
}

var candidates = []candidate{
	{driver: "qemu", pkg: "internal/vmm/qemu", skip: "^(TestBrokenKVM|Test.*ARM64)$", because: "they are about emulation"},
	{driver: "cloud-hypervisor", pkg: "internal/vmm/cloudhypervisor", variable: "AEGIS_LAB_CLOUD_HYPERVISOR"},
	{driver: "libkrun", pkg: "internal/vmm/libkrun", variable: "AEGIS_LAB_LIBKRUN", lacks: "^(TestHibernate|TestClones|TestForkContract)$"},
}

// Bounds of the two jobs of each driver.
const (
	contractTimeout = 12 * time.Minute
	endToEndTimeout = 12 * time.Minute
)

// makePlan decides what is run, and tells what is not. root is that of the module.
func makePlan(root, only string) (plan, error) {
	p := plan{}
	for _, c := range candidates {
		why, err := c.missing(root)
		if err != nil {
			return p, err
		}
		if why != "" {
			p.LeftOut = append(p.LeftOut, c.driver+": "+why)
			continue
		}
		contract, err := vmTests(root, c.pkg)
		if err != nil {
			return p, err
		}
		p.add(only, &job{Driver: c.driver, Name: "contract", Package: c.pkg, Tests: contract, Skip: c.skip, Timeout: contractTimeout}, c.because)
		skip, because := elsewhere, "its user may not use KVM"
		if c.lacks != "" {
			skip, because = c.lacks+"|"+skip, "the driver cannot save, or "+because
		}
		p.add(only, &job{Driver: c.driver, Name: "e2e", Package: "test/e2e", Tests: endToEnd, Skip: skip, Timeout: endToEndTimeout}, because)
	}
	return p, nil
}

// add adds a job that is asked for, and tells what is not run of it.
func (p *plan) add(only string, j *job, because string) {
	if !strings.Contains(j.String(), only) {
		p.LeftOut = append(p.LeftOut, j.String()+": not asked for")
		return
	}
	p.Jobs = append(p.Jobs, *j)
	if j.Skip != "" {
		p.LeftOut = append(p.LeftOut, j.String()+" "+strings.NewReplacer("^", "", "$", "", "(", "", ")", "").Replace(j.Skip)+": "+because)
	}
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)

// vmTests returns the tests of a package that boot VMs: those with the build tag, which are in files
// of their own.
func vmTests(root, pkg string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_integration_test.go"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for _, m := range testFunction.FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names, nil
}

// missing tells why a driver cannot be tried, or "".
func (c *candidate) missing(root string) (string, error) {
	tests, err := vmTests(root, c.pkg)
	path := os.Getenv(c.variable) // "" for ""
	switch {
	case err != nil:
		return "", err
	case len(tests) == 0:
		return "there is no such driver in this tree", nil
	case c.variable == "":
		return "", nil
	case path == "":
		return "not here; " + c.variable + " says where it is", nil
	}
	if _, err := os.Stat(path); err != nil { //nolint:gosec // whoever runs the lab names it
		return c.variable + ": " + err.Error(), nil //nolint:nilerr // which is told
	}
	return "", nil
}
