package libkrun

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestTrial is the trial of KVM with a library that plays the kernel.
func TestTrial(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	d := openStub(t, stub(t))
	v, err := d.tryKVM(t.Context(), testKernel(t))
	if err != nil || !v.Works {
		t.Errorf("tryKVM = %+v, %v", v, err)
	}
	d = openStub(t, stub(t, "REFUSES"))
	v, err = d.tryKVM(t.Context(), testKernel(t))
	if err != nil || v.Works || !strings.Contains(v.Why, "no such device") {
		t.Errorf("tryKVM = %+v, %v", v, err)
	}
}
