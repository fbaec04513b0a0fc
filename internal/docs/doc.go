// Package docs holds the tests that keep README.md and docs/ true: links lead
// somewhere, flags and defaults are those of the program, console examples run,
// tables agree with the code.
//
// Parts of the documents are generated from the code, between a line
// <!-- generated: NAME --> and a line <!-- end -->. When the code changes,
//
//	go test ./internal/docs -update
//
// writes them anew; without the flag a difference is a failure.
package docs
