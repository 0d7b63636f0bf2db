package httpapi

import (
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

func TestWhenOf(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	if w, err := whenOf(api.ScheduleRequest{At: &at}); err != nil || !w.At().Equal(at.Truncate(time.Second)) {
		t.Errorf("%v, %v", w, err)
	}
	if w, err := whenOf(api.ScheduleRequest{Schedule: "0 8 * * *", TimeZone: "UTC"}); err != nil || w.String() != "0 8 * * * UTC" {
		t.Errorf("%v, %v", w, err)
	}
	for name, req := range map[string]api.ScheduleRequest{
		"nothing":     {},
		"both":        {Schedule: "0 8 * * *", At: &at},
		"moment zone": {At: &at, TimeZone: "UTC"},
		"no zone":     {Schedule: "0 8 * * *", TimeZone: "../../etc/passwd"},
	} {
		if w, err := whenOf(req); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, %v", name, w, err)
		}
	}
}

func TestIdleTimes(t *testing.T) {
	pause, stop, err := idleTimes(new(int64(7)), nil)
	if err != nil || *pause != 7*time.Second || stop != nil {
		t.Errorf("%v, %v, %v", pause, stop, err)
	}
	for _, bad := range []int64{-1, maxSeconds + 1} {
		if _, _, err := idleTimes(nil, &bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%d: %v", bad, err)
		}
	}
}
