package httpapi

import (
	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func leaseOf(l instance.Lease) api.LeaseStatus {
	if !l.Held() {
		return api.LeaseStatus{}
	}
	at := l.Expires.UTC()
	return api.LeaseStatus{LeaseHeld: true, LeaseReason: l.Reason, LeaseExpiresAt: &at}
}
