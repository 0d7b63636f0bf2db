// Package sparse copies files without filling their holes: as a copy-on-write clone
// where the file system has them, else extent by extent.
//
// The package is a leaf. It imports nothing of AegisVM.
package sparse
