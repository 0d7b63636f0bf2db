package httpapi

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/instance"
)

// listed is an Instances that can only list.
type listed struct {
	Instances
	views []instance.View
}

func (l listed) List() []instance.View { return l.views }

// TestListOrder lists instances in every state: those that run first, within a state the
// oldest first.
func TestListOrder(t *testing.T) {
	view := func(id instance.ID, state instance.State, enabled bool) instance.View {
		return instance.View{Record: instance.Record{ID: id, Enabled: enabled}, State: state}
	}
	cl, _, _ := serveConfig(t, &stubRunner{}, Config{Instances: listed{views: []instance.View{
		view("off", instance.Stopped, false), view("stopped", instance.Stopped, true), view("paused", instance.Paused, true),
		view("booting", instance.Booting, true), view("running", instance.Running, true), view("pausing", instance.Pausing, true),
		view("resuming", instance.Resuming, true), view("stopping", instance.Stopping, true), view("erasing", instance.Erasing, true),
	}}}, os.Getuid())
	for query, want := range map[string]string{
		"":         "running pausing resuming stopping booting paused stopped erasing off",
		"running":  "running pausing resuming stopping",
		"starting": "booting",
		"paused":   "paused",
		"stopped":  "stopped erasing off",
		"strange":  "",
	} {
		list, err := cl.List(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range list {
			got = append(got, i.ID)
		}
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("state %q: %v, want %s", query, got, want)
		}
	}
}
