package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Metrics is the daemon's own registry.
type Metrics struct {
	registry *prometheus.Registry
	changes  *prometheus.CounterVec
}

// New returns the metrics of the instances that list returns.
func New(list func() []instance.View) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aegis_state_changes_total", Help: "Changes of an instance's state, by the state it came to and the event behind it.",
		}, []string{"to", "why"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "aegis_build_info", Help: "The daemon's version; always 1.", ConstLabels: prometheus.Labels{"version": buildinfo.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.changes, build, census{list},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Count counts changes until the channel is closed.
func (m *Metrics) Count(changes <-chan instance.Change) {
	for c := range changes {
		m.changes.WithLabelValues(c.To.String(), c.Why).Inc()
	}
}

// Handler serves the metrics in Prometheus's text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// census measures the instances there are.
type census struct{ list func() []instance.View }

var (
	instances = prometheus.NewDesc("aegis_instances", "Instances in each state.", []string{"state"}, nil)
	holds     = prometheus.NewDesc("aegis_instance_holds", "Reasons for an instance to be awake.", []string{"id", "handle"}, nil)
	memory    = prometheus.NewDesc("aegis_instance_memory_bytes", "Memory of the host that an instance takes, shared pages by its share.",
		[]string{"id", "handle"}, nil)
	bytes = prometheus.NewDesc("aegis_instance_network_bytes_total", "Bytes over an instance's network card, without its workspace and DNS.",
		[]string{"id", "handle", "direction"}, nil)
	connections = prometheus.NewDesc("aegis_instance_connections_total", "Connections to an instance's ports (in) and to the outside (out).",
		[]string{"id", "handle", "direction"}, nil)
	denied = prometheus.NewDesc("aegis_instance_egress_denied_total", "Attempts of an instance that its egress policy refused.", []string{"id", "handle"}, nil)
	disk   = prometheus.NewDesc("aegis_instance_disk_bytes", "Disk of the host that an instance's files take.", []string{"id", "handle"}, nil)
)

// Describe implements prometheus.Collector.
func (census) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{instances, holds, memory, disk, bytes, connections, denied} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c census) Collect(out chan<- prometheus.Metric) {
	states := map[string]int{"starting": 0, "running": 0, "paused": 0, "stopped": 0}
	for _, v := range c.list() {
		states[v.State.Wire()]++
		id, handle := string(v.ID), v.Spec.Handle
		out <- prometheus.MustNewConstMetric(holds, prometheus.GaugeValue, float64(len(v.Holds)), id, handle)
		t := v.Traffic()
		count := func(d *prometheus.Desc, n uint64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append([]string{id, handle}, labels...)...)
		}
		count(bytes, t.InBytes, "in")
		count(bytes, t.OutBytes, "out")
		count(connections, t.Accepted, "in")
		count(connections, t.Opened, "out")
		count(denied, t.Denied)
		// What cannot be measured now, such as a machine that has just ended, is left out.
		if n, err := v.Memory(); err == nil {
			out <- prometheus.MustNewConstMetric(memory, prometheus.GaugeValue, float64(n), id, handle)
		}
		if n, err := v.DiskUse(); err == nil {
			out <- prometheus.MustNewConstMetric(disk, prometheus.GaugeValue, float64(n), id, handle)
		}
	}
	for state, n := range states {
		out <- prometheus.MustNewConstMetric(instances, prometheus.GaugeValue, float64(n), state)
	}
}
