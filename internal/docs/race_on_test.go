//go:build race

package docs

// raceFlag builds the program like this test: its dependencies are in the build
// cache then.
const raceFlag = "-race"
