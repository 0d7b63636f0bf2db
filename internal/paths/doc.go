// Package paths knows where AegisVM keeps its files: the layout of AEGIS_HOME
// and the folders in which its programs find each other.
//
// It names files and makes folders; it never reads or removes what is in them.
// The package is a leaf: it imports nothing of AegisVM.
package paths
