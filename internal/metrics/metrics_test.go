package metrics

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/size"
)

func TestMetrics(t *testing.T) {
	v := instance.View{
		Record: instance.Record{ID: "inst-1", Spec: instance.Spec{Handle: "web"}},
		State:  instance.Paused,
		Memory: func() (size.Bytes, error) { return 5 * size.MiB, nil },
		Traffic: func() instance.Traffic {
			return instance.Traffic{InBytes: 1, OutBytes: 2, Accepted: 3, Opened: 4, Denied: 5}
		},
		DiskUse: func() (size.Bytes, error) { return 0, errors.New("just deleted") },
	}
	m := New(func() []instance.View { return []instance.View{v} })
	changes := make(chan instance.Change, 1)
	changes <- instance.Change{From: instance.Running, To: instance.Pausing, Why: "idle"}
	close(changes)
	m.Count(changes)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	body := w.Body.String()
	for _, want := range []string{
		`aegis_instances{state="paused"} 1`, `aegis_instances{state="running"} 0`,
		`aegis_instance_memory_bytes{handle="web",id="inst-1"} 5.24288e+06`,
		`aegis_state_changes_total{to="pausing",why="idle"} 1`,
		`aegis_instance_network_bytes_total{direction="out",handle="web",id="inst-1"} 2`,
		`aegis_instance_connections_total{direction="in",handle="web",id="inst-1"} 3`,
		`aegis_instance_egress_denied_total{handle="web",id="inst-1"} 5`,
		`aegis_instance_holds{handle="web",id="inst-1"} 0`, "process_open_fds", "go_goroutines",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if strings.Contains(body, "aegis_instance_disk_bytes{") {
		t.Error("what could not be measured is reported")
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "aegis_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}
