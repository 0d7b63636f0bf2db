// Package e2e tests AegisVM as a user has it: the built programs, a home of their
// own, real VMs. All of its tests carry the build tag integration.
//
// They take a home that `aegis setup` has filled from AEGIS_TEST_HOME and the
// programs from AEGIS_TEST_BIN; `make integration` sets both. Where they are missing
// tests skip, unless AEGIS_REQUIRE_VM=1. AEGIS_STRESS=1 runs the full forms.
package e2e
