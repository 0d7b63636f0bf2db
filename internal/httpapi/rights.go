package httpapi

import (
	"reflect"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// rightsOf returns what capabilities are in a request.
func rightsOf(c *api.Capabilities) api.Capabilities {
	if c == nil {
		return api.Capabilities{}
	}
	return *c
}

// capabilitiesOf returns the capabilities of an instance, nil if there are none.
func capabilitiesOf(c api.Capabilities) *api.Capabilities {
	if reflect.ValueOf(c).IsZero() {
		return nil
	}
	return &c
}

func leaseOf(l instance.Lease) api.LeaseStatus {
	if !l.Held() {
		return api.LeaseStatus{}
	}
	at := l.Expires.UTC()
	return api.LeaseStatus{LeaseHeld: true, LeaseReason: l.Reason, LeaseExpiresAt: &at}
}
