// Package config is AegisVM's settings: what there is, what a value may be, and
// where the value in force comes from.
//
// Later origins win: the default, AEGIS_HOME/config.toml, the environment
// (AEGIS_ and the key in capitals), flags. Every value is text that the same
// function reads, wherever it stands. A key that is not a setting, and a value that
// is none, are errors that name file and line, variable or flag.
//
//	conf, err := config.Load(home, os.Environ(), nil)
//	conf.Memory          // what is in force
//	conf.Settings()      // every setting with its origin, for `aegis config show`
//
// A setting is one entry of the table in settings.go. The package knows no other
// part of AegisVM but leaves: it says what is wanted, not what is done with it.
package config
