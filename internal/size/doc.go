// Package size gives quantities of memory and disk a type and one textual form.
//
// The package is a leaf: it imports nothing of AegisVM.
package size
