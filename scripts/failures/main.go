// Failures writes docs/failures.md from the doc comments of the tests, and takes
// the word "open" off the rows of list.txt that have a test now.
//
//	go run ./scripts/failures [DIR]
package main

import (
	"log"
	"os"
	"path/filepath"

	"p2pagent/internal/failures"
)

func main() {
	log.SetFlags(0)
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := write(root); err != nil {
		log.Fatalf("failures: %v", err)
	}
}

func write(root string) error {
	report, err := failures.Read(os.DirFS(root))
	if err != nil {
		return err
	}
	if len(report.Open) > 0 {
		if err := closeRows(filepath.Join(root, failures.List), report.Open); err != nil {
			return err
		}
		return write(root)
	}
	for _, fault := range report.Wrong {
		log.Print(fault)
	}
	return os.WriteFile(filepath.Join(root, failures.Page), []byte(report.Text), 0o644)
}

func closeRows(list string, ids []string) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	return os.WriteFile(list, []byte(failures.Close(string(text), ids)), 0o644)
}
