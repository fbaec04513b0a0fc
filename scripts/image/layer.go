package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user owns nothing in the image; the number is what other images call nonroot.
const user = "65532"

// file is one entry of the image's only layer; a name that ends in a slash is a
// folder.
type file struct {
	name    string
	content []byte
	mode    int64
}

// contents returns what the layer has around the program: certificates, since
// the Hub is asked over TLS, and names for the user.
func contents(program string) ([]file, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	return []file{
		{name: "etc/", mode: 0o755},
		{name: "etc/group", content: []byte("p2pagent:x:" + user + ":\n"), mode: 0o644},
		{name: "etc/passwd", content: []byte("p2pagent:x:" + user + ":" + user + "::/:/sbin/nologin\n"), mode: 0o644},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: "etc/ssl/certs/ca-certificates.crt", content: roots(), mode: 0o644},
		{name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: "usr/bin/p2pagent", content: binary, mode: 0o755},
	}, nil
}

// roots returns Mozilla's certificates as PEM, those apart that are trusted under
// conditions a file can't express.
func roots() []byte {
	var out bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}) // a buffer takes all
		}
	}
	return out.Bytes()
}

// writeTar writes files in their order, all of one time and of root.
func writeTar(w io.Writer, files []file, at time.Time) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.content); err != nil {
			return err
		}
	}
	return t.Close()
}

// compressed returns the layer as registries keep it.
func compressed(layer []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out) // no name and no time in its header
	_, err := z.Write(layer)
	err = errors.Join(err, z.Close())
	return out.Bytes(), err
}
