//go:build !linux

package process

// marked finds nothing: agents live in Linux guests. Elsewhere groups are killed.
func marked(string) []int { return nil }
