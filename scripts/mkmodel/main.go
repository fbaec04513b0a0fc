// Command mkmodel writes a model of random weights: safetensors shards with
// bfloat16 tensors, their index, and the small files of a language model.
//
//	mkmodel -size 512MiB -shards 4 DIR          the files, in DIR
//	mkmodel -size 1GiB -shards 8 -sums F DIR    and their SHA-256 in F
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"p2pagent/scripts/internal/size"
	"p2pagent/scripts/internal/testmodel"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mkmodel:", err)
		os.Exit(1)
	}
}

func run() error {
	total := size.Bytes(512 << 20)
	flag.Var(&total, "size", "bytes of all shards together")
	shards := flag.Int("shards", 4, "number of safetensors files")
	seed := flag.Uint64("seed", 1, "another seed makes another model")
	normal := flag.Bool("normal", false, "weights of a normal distribution, which compress as trained ones do")
	twins := flag.Bool("twins", false, "two more files that have bytes of the shards")
	sums := flag.String("sums", "", "file for the SHA-256 of every file, as sha256sum -c reads it")
	flag.Parse()
	if flag.NArg() != 1 {
		return errors.New("want one folder")
	}
	files, err := testmodel.Write(flag.Arg(0), testmodel.Options{Size: int64(total), Shards: *shards, Seed: *seed, Normal: *normal, Twins: *twins})
	if err != nil {
		return err
	}
	if *sums == "" {
		return nil
	}
	return os.WriteFile(*sums, []byte(testmodel.Sums(files)), 0o644)
}
