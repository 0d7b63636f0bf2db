// Package proof holds documents to the tests that they name: docs/SECURITY.md, and lessons.md
// here, which says for each trap that systems of this kind have fallen into which test keeps
// AegisVM out of it.
//
// A test is named as `folder.TestName`, or `folder.TestName/part` for a part that has a name
// in the source or is a script.
package proof
