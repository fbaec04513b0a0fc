// Package layers holds the import table of the project as a test: who may import
// whom, and where the heavy dependencies may be seen. It has no code of its own.
package layers
