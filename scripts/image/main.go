// Image writes a container image with nothing in it but the static program and
// the certificates of the Hub, for several architectures: an OCI layout in a tar,
// which also has the manifest that docker load looks for. The same input gives
// the same bytes.
//
//	image -o FILE -name NAME:TAG [-version V] [-revision COMMIT] [-created SECONDS] ARCH=PROGRAM ...
//
// docker load takes the first architecture.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"
)

type options struct {
	out, name, version, revision string
	created                      time.Time
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("image: ")
	var o options
	seconds := flag.Int64("created", 0, "`seconds` since 1970, the time of everything in it")
	flag.StringVar(&o.out, "o", "image.tar", "the `file` to write")
	flag.StringVar(&o.name, "name", "p2pagent:dev", "the image's `name:tag`")
	flag.StringVar(&o.version, "version", "", "version label")
	flag.StringVar(&o.revision, "revision", "", "commit label")
	flag.Parse()
	o.created = time.Unix(*seconds, 0).UTC()
	digest, err := build(o, flag.Args())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(digest)
}

// build writes the image, and returns the digest by which a registry will know it.
func build(o options, programs []string) (string, error) {
	l := &layout{created: o.created}
	var docker []dockerImage
	index := manifestList{SchemaVersion: 2, MediaType: typeIndex}
	for _, arg := range programs {
		arch, program, ok := strings.Cut(arg, "=")
		if !ok {
			return "", fmt.Errorf("%q, want ARCH=PROGRAM", arg)
		}
		m, err := l.image(o, arch, program)
		if err != nil {
			return "", fmt.Errorf("image for %s: %w", arch, err)
		}
		index.Manifests = append(index.Manifests, m.descriptor)
		docker = append(docker, dockerImage{Config: m.config.path(), RepoTags: []string{o.name}, Layers: []string{m.layer.path()}})
	}
	if len(docker) == 0 {
		return "", fmt.Errorf("no programs: want ARCH=PROGRAM ...")
	}
	top := l.addJSON(typeIndex, index)
	_, tag, _ := strings.Cut(o.name[strings.LastIndexByte(o.name, '/')+1:], ":")
	named := top
	named.Annotations = map[string]string{"io.containerd.image.name": o.name, "org.opencontainers.image.ref.name": tag}
	l.add("index.json", mustJSON(manifestList{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{named}}))
	l.add("manifest.json", mustJSON(docker[:1]))
	l.add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return top.Digest, l.write(o.out)
}

// image adds one architecture.
func (l *layout) image(o options, arch, program string) (image, error) {
	files, err := contents(program)
	if err != nil {
		return image{}, err
	}
	var plain bytes.Buffer
	if err := writeTar(&plain, files, o.created); err != nil {
		return image{}, err
	}
	packed, err := compressed(plain.Bytes())
	if err != nil {
		return image{}, err
	}
	m := image{layer: l.addBlob(typeLayer, packed)}
	m.config = l.addJSON(typeConfig, configOf(o, arch, digestOf(plain.Bytes())))
	m.descriptor = l.addJSON(typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: m.config, Layers: []descriptor{m.layer}})
	m.descriptor.Platform = &platform{Architecture: arch, OS: "linux"}
	return m, nil
}

// configOf says how to run it. The cache's place is the one of the packages.
func configOf(o options, arch, diff string) config {
	c := config{Architecture: arch, OS: "linux", Created: o.created}
	c.Config.User = user + ":" + user
	c.Config.Env = []string{"PATH=/usr/bin", "HF_HOME=/var/lib/p2pagent"}
	c.Config.Entrypoint, c.Config.Cmd, c.Config.WorkingDir = []string{"/usr/bin/p2pagent"}, []string{"agent"}, "/"
	c.Config.Labels = map[string]string{
		"org.opencontainers.image.title":       "p2pagent",
		"org.opencontainers.image.description": "models on every node of a fleet with one upstream copy",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     o.version,
		"org.opencontainers.image.revision":    o.revision,
	}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{diff}
	c.History = []history{{CreatedBy: "scripts/image/build", Created: o.created}}
	return c
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// mustJSON is for our own types, which can be encoded.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// write makes the tar.
func (l *layout) write(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := writeTar(f, l.files, l.created); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	return f.Close()
}
