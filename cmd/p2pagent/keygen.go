package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"p2pagent/pkg/swarm"
)

const keygenLong = `Make a swarm key: the secret that all members of a swarm share. With FILE it is
written there, readable by its owner alone; a file that exists is left as it is.
Without, it goes to stdout.`

func (p *program) keygenCmd() *cobra.Command {
	return &cobra.Command{
		Use: "keygen [FILE]", Short: "make a swarm key", Long: keygenLong, Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key := swarm.NewKey()
			if len(args) == 0 {
				_, err := fmt.Fprintln(p.stdout, key.Encode())
				return err
			}
			if err := writeKey(args[0], key); err != nil {
				return fmt.Errorf("keygen: %w", err)
			}
			fmt.Fprintf(p.stderr, "p2pagent: wrote %s, fingerprint %s; copy it to every node\n", clean(args[0]), key.Fingerprint())
			return nil
		},
	}
}

func writeKey(path string, key swarm.Key) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s exists; a key that is in use must not be lost", path)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, key.Encode())
	return errors.Join(err, f.Sync(), f.Close())
}
