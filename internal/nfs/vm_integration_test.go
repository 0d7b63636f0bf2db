//go:build integration

package nfs_test

import (
	"testing"
)

func TestVM(t *testing.T) {
	v, dir := workspace(t)
	_ = dir
	t.Log(v.must(t, "grep workspace /proc/mounts; which git python3 sqlite3 gcc; python3 --version; ls -la; echo hi > a; cat a; ln a b; ls -la; rm a b; python3 -c 'import sqlite3; print(sqlite3.sqlite_version)'"))
}
