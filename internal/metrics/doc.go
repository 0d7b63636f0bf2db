// Package metrics tells Prometheus how the daemon and its instances do.
//
// Quantities of instances are measured when somebody asks; changes of state are
// counted as they happen, from the core's own list of them. The package imports the
// core and nothing else of AegisVM's but leaves.
package metrics
