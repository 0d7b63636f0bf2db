// Package archtest keeps the shape of the repository true: the import arrows of
// docs/ARCHITECTURE.md, a doc comment for every package, the size of files, and the
// size of the program that runs as PID 1. It has tests only.
package archtest
