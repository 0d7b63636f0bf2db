// Package script tests the programs as a user types them: `aegis` and `aegisd` are
// this package's test binary under other names, with the daemon on the fake driver
// and a scripted guest. No VM is needed, so that all of it runs in `make test`.
//
// A script is testdata/script/*.txtar, in the language of testscript. Next to its
// commands there are:
//
//	await N          wait until N instances run
//	awaitline F TXT  wait until file F holds the text TXT
//	killdaemon [SIG] kill the daemon with SIGKILL or another signal, and wait for its end
//	get FILE PATH    write the API's answer to GET PATH into FILE
//	nowhere F [O...] the text in file F is not in the home, nor in arguments or
//	                 environment of any process, nor in the files O
//	random FILE N    make a file of N random bytes, the same each time
//	status N CMD...  run a command that must end with status N
//
// AEGIS_TEST_FAULT in the daemon's environment makes it fail, see world_test.go.
// `go test ./test/script -update` rewrites what commands are expected to print.
package script
