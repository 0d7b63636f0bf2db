// Package packaging holds what users install: install.sh, what packages bring next to programs,
// and the tests of both. There is no code in it that a program is made of.
//
//	.goreleaser.yaml  which program goes into which package, and where to (in the root folder)
//	stage, notices    lay out manual pages, completions, units and licences
//	man               prints the manual pages
//	install.sh        for systems without packages, and for those who want no root
//	homebrew          the formulae of the tap, which formulae fills in
//	deb               what dpkg and rpm run and show
//
// The layout is that of a prefix: bin, lib/aegisvm, share. internal/paths knows it too.
package packaging
