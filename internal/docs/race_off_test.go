//go:build !race

package docs

const raceFlag = ""
