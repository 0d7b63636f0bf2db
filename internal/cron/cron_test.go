package cron

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for expr, good := range map[string]bool{
		"*/5 * * * *": true, "0 8 * * mon-fri": true, "0 0 29 2 *": true, "@hourly": true, "@daily": true, "@weekly": true, "@monthly": true, "@yearly": true,
		"0 0 30 2 *": false, "@every 5m": false, "@reboot": false, "* * * *": false, "60 * * * *": false, "TZ=UTC 0 0 * * *": false, "": false,
		strings.Repeat("1,", 200) + "1 * * * *": false,
	} {
		if s, _, err := Parse(expr); (err == nil) != good || (s != nil) != good {
			t.Errorf("%q: %v, %v", expr, s, err)
		}
	}
	if _, expr, err := Parse(" 0  8 *\t* 1-5 "); err != nil || expr != "0 8 * * 1-5" {
		t.Errorf("%q, %v", expr, err)
	}
}

func TestIsName(t *testing.T) {
	for s, good := range map[string]bool{"a": true, "cron-1_x:y.z": true, "": false, "-a": false, "a b": false, "a/b": false, strings.Repeat("a", 65): false} {
		if IsName(s) != good {
			t.Errorf("%q: %v", s, !good)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 1-2 3,4 * 1-5", "TZ=", "CRON_TZ=x", "@every", "0 0 30 2 *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if sched, expr, err := Parse(s); err == nil && sched.Next(time.Unix(0, 0)).IsZero() {
			t.Errorf("%q never comes", expr)
		}
	})
}
