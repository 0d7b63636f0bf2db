package tool

import "testing"

// TestSchedulesAreTheHosts: what the host leaves out is refused when it is made, and what it takes
// is taken. Package schedule has the host's rules.
func TestSchedulesAreTheHosts(t *testing.T) {
	for expr, good := range map[string]bool{
		"*/5 * * * *": true, "0 8 * * mon-fri": true, "0 0 29 2 *": true, "@hourly": true, "@daily": true, "@weekly": true, "@monthly": true, "@yearly": true,
		"0 0 30 2 *": false, "@every 5m": false, "@reboot": false, "* * * *": false, "60 * * * *": false, "TZ=UTC 0 0 * * *": false, "": false,
	} {
		if _, err := ParseSchedule(expr); (err == nil) != good {
			t.Errorf("%q: %v", expr, err)
		}
	}
}
