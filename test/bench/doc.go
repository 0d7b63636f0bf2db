// Package bench measures AegisVM in real VMs, each figure beside its floor from the
// same run: the machine is noisy, ratios are not. `make bench` runs it.
package bench
