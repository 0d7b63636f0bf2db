package instance

import (
	"fmt"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// maxHostUse is the share of the host's memory, in percent, that a start may not
// take it above.
const maxHostUse = 85

// admit refuses a machine for which the host has no memory left. Machines take
// memory as they touch it, so what counts is what the host has free now.
func (w *World) admit(want size.Bytes) error {
	if w.Memory == nil {
		return nil
	}
	total, available, err := w.Memory()
	if err != nil {
		return fmt.Errorf("measure the host's memory: %w", err)
	}
	room := available - total*(100-maxHostUse)/100
	if want <= room {
		return nil
	}
	return fault.New(fault.Exhausted, "a VM of %v would leave too little of the host's memory: %v of %v are free", want, available, total).
		By(fault.Host).WithHint("stop an instance (aegis instance list), or give this one less: --memory")
}
