// Package script tests the programs as a user types them: `aegis` and `aegisd` are
// this package's test binary under other names, with the daemon on the fake driver
// and a scripted guest. No VM is needed, so that all of it runs in `make test`.
//
// A script is testdata/script/*.txtar, in the language of testscript. Next to its
// commands there are:
//
//	await N          wait until N instances run
//	awaitline F TXT  wait until file F holds the text TXT
//	killdaemon       kill the daemon with SIGKILL, and wait for its end
//	random FILE N    make a file of N random bytes, the same each time
//	status N CMD...  run a command that must end with status N
//
// AEGIS_TEST_FAULT in the daemon's environment makes it fail, see world_test.go.
// `go test ./test/script -update` rewrites what commands are expected to print.
package script
