package main

import (
	"slices"
	"strings"
	"testing"
)

// planFor makes a plan for this tree.
func planFor(t *testing.T, only string) plan {
	t.Helper()
	p, err := makePlan("../..", only)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlan(t *testing.T) {
	for variable, path := range map[string]string{"AEGIS_LAB_CLOUD_HYPERVISOR": "/no/such", "AEGIS_LAB_LIBKRUN": ""} {
		t.Setenv(variable, path)
	}
	p := planFor(t, "")
	if len(p.Jobs) != 2 || p.Jobs[0].String() != "qemu/contract" || p.Jobs[1].String() != "qemu/e2e" {
		t.Fatalf("jobs %+v", p.Jobs)
	}
	if !slices.Contains(p.Jobs[0].Tests, "TestConformance") || p.Jobs[0].Skip == "" {
		t.Errorf("the contract of QEMU is %+v", p.Jobs[0])
	}
	// What is not there is told, whichever it is: the driver or its VMM.
	for _, left := range []string{"cloud-hypervisor: ", "libkrun: ", "qemu/contract TestBrokenKVM"} {
		if !slices.ContainsFunc(p.LeftOut, func(why string) bool { return strings.HasPrefix(why, left) }) {
			t.Errorf("of %s nothing is told: %q", left, p.LeftOut)
		}
	}
	if p = planFor(t, "e2e"); len(p.Jobs) != 1 || !slices.Contains(p.LeftOut, "qemu/contract: not asked for") {
		t.Errorf("asked for e2e: %+v, %q", p.Jobs, p.LeftOut)
	}
}

// TestEndToEndExists: a test that was renamed would be left out of the lab without a word.
func TestEndToEndExists(t *testing.T) {
	there, err := vmTests("../..", "test/e2e")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range endToEnd {
		if !slices.Contains(there, name) {
			t.Errorf("there is no %s in %q", name, there)
		}
	}
	for _, c := range candidates {
		for name := range strings.SplitSeq(strings.Trim(c.lacks, "^()$"), "|") {
			if name != "" && !slices.Contains(endToEnd, name) {
				t.Errorf("%s lacks %s, which is not run", c.driver, name)
			}
		}
	}
}
