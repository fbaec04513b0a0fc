package layout

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// Entry is a file that is, or was, here: its content, what the store calls it, and
// its layout.
type Entry struct {
	Blob pieces.Blob
	Name pieces.Digest
	Layout
}

// Limits on an index. A usual model has a term for each xorb of 64 MiB; its layout
// takes some 50 bytes a term.
const (
	mostEntries = 1 << 14
	mostBytes   = 32 << 20
	mostEntry   = 8 << 20 // of one layout
)

// Index remembers the layouts of files, on the disk and over restarts, and which
// xorbs they have. What it forgets, when it is full the longest unused first, costs
// a question to the store. It is safe for concurrent use.
type Index struct {
	root  *durable.Root
	stage *durable.Stage
	log   *slog.Logger

	mu      sync.Mutex // held while files of a few kilobytes are read and written
	entries map[pieces.Digest]*known
	byXorb  map[Xorb][]*known
	bytes   int64
}

// known is an entry on the disk.
type known struct {
	name  pieces.Digest
	size  int64
	used  time.Time
	xorbs []Xorb // distinct
}

const stageDir = "new"

// OpenIndex reads the index in a folder, which is made when it is missing. One
// process uses it at a time. A file that is not right is removed, and log, where nil
// discards, says so.
func OpenIndex(dir string, log *slog.Logger) (*Index, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	x := &Index{log: log, entries: make(map[pieces.Digest]*known), byXorb: make(map[Xorb][]*known)}
	if err := x.open(dir); err != nil {
		return nil, fmt.Errorf("open index of layouts %s: %w", dir, err)
	}
	return x, nil
}

func (x *Index) open(dir string) error {
	if err := os.MkdirAll(path.Join(dir, stageDir), 0o700); err != nil {
		return err
	}
	root, err := durable.Open(dir, nil)
	if err != nil {
		return err
	}
	x.root, x.stage = root, durable.NewStage(root, stageDir)
	if _, err := x.stage.Sweep(); err != nil {
		return errors.Join(err, root.Close())
	}
	if err := x.load(); err != nil {
		return errors.Join(err, root.Close())
	}
	return nil
}

func (x *Index) load() error {
	list, err := x.root.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.IsDir() {
			continue
		}
		if err := x.loadOne(e); err != nil {
			x.complain(e.Name(), err)
			x.root.Remove(e.Name()) // it can be asked for again
		}
	}
	x.shrink()
	return nil
}

func (x *Index) loadOne(e fs.DirEntry) error {
	entry, size, err := x.read(e.Name())
	if err != nil {
		return err
	}
	if entry.Name.String() != e.Name() {
		return ErrBad
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	x.enter(entry, size, info.ModTime())
	return nil
}

func (x *Index) complain(name string, err error) {
	x.log.Warn("layout dropped", "file", name, "error", err)
}

// Close ends the use of the folder.
func (x *Index) Close() error { return x.root.Close() }

// Get returns the entry of a file by its name in the store.
func (x *Index) Get(name pieces.Digest) (Entry, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.entries[name]
	if k == nil {
		return Entry{}, false
	}
	entry, _, err := x.read(name.String())
	if err != nil {
		x.complain(name.String(), err)
		x.forget(k)
		return Entry{}, false
	}
	k.used = time.Now()
	return entry, true
}

// Put remembers an entry. It is on the disk, unsynced, on return.
func (x *Index) Put(e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("note layout of %s: %w", e.Name, err)
	}
	raw := e.marshal()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.entries[e.Name] != nil {
		return nil
	}
	if err := x.stage.WriteHint(x.root, e.Name.String(), raw, 0o600); err != nil {
		return fmt.Errorf("note layout of %s: %w", e.Name, err)
	}
	x.enter(e, int64(len(raw)), time.Now())
	x.shrink()
	return nil
}

// Forget drops an entry that is not to be believed.
func (x *Index) Forget(name pieces.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.entries[name]; k != nil {
		x.forget(k)
	}
}

// Sharing returns the names of at most n files that have xorbs of the layout, those
// first that have most of it. A file itself is not among them.
func (x *Index) Sharing(l Layout, self pieces.Digest, n int) []pieces.Digest {
	size := make(map[Xorb]int64, len(l.Terms))
	for _, t := range l.Terms {
		size[t.Xorb] += t.Size
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	score := make(map[*known]int64)
	for xorb, bytes := range size {
		for _, k := range x.byXorb[xorb] {
			if k.name != self {
				score[k] += bytes
			}
		}
	}
	best := slices.SortedFunc(maps.Keys(score), func(a, b *known) int {
		return cmp.Or(cmp.Compare(score[b], score[a]), b.used.Compare(a.used), cmp.Compare(a.name.String(), b.name.String()))
	})
	var out []pieces.Digest
	for _, k := range best[:min(n, len(best))] {
		out = append(out, k.name)
	}
	return out
}

// Empty tells whether no file is known.
func (x *Index) Empty() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.entries) == 0
}

// enter is called with x.mu held, or before anybody else has x.
func (x *Index) enter(e Entry, size int64, used time.Time) {
	k := &known{name: e.Name, size: size, used: used}
	seen := make(map[Xorb]bool)
	for _, t := range e.Terms {
		if !seen[t.Xorb] {
			seen[t.Xorb] = true
			k.xorbs = append(k.xorbs, t.Xorb)
			x.byXorb[t.Xorb] = append(x.byXorb[t.Xorb], k)
		}
	}
	x.entries[e.Name] = k
	x.bytes += size
}

// forget removes an entry, with x.mu held.
func (x *Index) forget(k *known) {
	x.root.Remove(k.name.String()) // one that stays is found again at the next start
	delete(x.entries, k.name)
	x.bytes -= k.size
	for _, xorb := range k.xorbs {
		rest := slices.DeleteFunc(x.byXorb[xorb], func(o *known) bool { return o == k })
		if x.byXorb[xorb] = rest; len(rest) == 0 {
			delete(x.byXorb, xorb)
		}
	}
}

// shrink forgets a tenth of the index when it is full.
func (x *Index) shrink() {
	if len(x.entries) <= mostEntries && x.bytes <= mostBytes {
		return
	}
	oldest := slices.SortedFunc(maps.Values(x.entries), func(a, b *known) int { return a.used.Compare(b.used) })
	for _, k := range oldest {
		if len(x.entries) <= mostEntries*9/10 && x.bytes <= mostBytes*9/10 {
			return
		}
		x.forget(k)
	}
}

func (x *Index) read(name string) (Entry, int64, error) {
	raw, err := x.root.ReadFile(name, mostEntry)
	if err != nil {
		return Entry{}, 0, err
	}
	e, err := parseEntry(raw)
	return e, int64(len(raw)), err
}

func (e Entry) check() error {
	if e.Blob.Size != e.Size || e.Blob.Digest.Git() || e.Blob.Digest.IsZero() || e.Name.IsZero() {
		return fmt.Errorf("%w: of %d bytes, for a file of %d", ErrBad, e.Size, e.Blob.Size)
	}
	return e.Validate()
}

// An entry on the disk is its two digests, 32 bytes each, its layout, and crc32c over
// both (4, little-endian).
func (e Entry) marshal() []byte {
	out := append(e.Name.Bytes(), e.Blob.Digest.Bytes()...)
	out = append(out, e.Layout.Marshal()...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

func parseEntry(in []byte) (Entry, error) {
	const digests = 2 * 32
	end := len(in) - 4
	if end < digests || crc32.Checksum(in[:end], castagnoli) != binary.LittleEndian.Uint32(in[end:]) {
		return Entry{}, fmt.Errorf("%w: torn", ErrBad)
	}
	l, err := Parse(in[digests:end])
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Name: pieces.SHA256Digest([32]byte(in[:32])), Layout: l}
	e.Blob = pieces.Blob{Digest: pieces.SHA256Digest([32]byte(in[32:digests])), Size: l.Size}
	return e, e.check()
}
