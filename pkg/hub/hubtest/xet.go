package hubtest

import (
	"io"
	"maps"
	"os"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/pierrec/lz4/v4"

	"p2pagent/pkg/xet"
)

// Xet makes the Hub keep its LFS files in a content-addressed store too, which its
// CDN's address serves. The zero value behaves like the real one, but for
// deduplication: every file is stored in full, in xorbs that neighbouring files
// of a commit share.
type Xet struct {
	// CAS is the store's address as the Hub tells it; "" is the CDN's.
	CAS string
	// TokenFor is how long a read token is good; default 15 minutes.
	TokenFor time.Duration
	// XorbSize is the most plain bytes of a xorb; default 64 MiB.
	XorbSize int64
	// Dedup leaves out chunks that are stored already, in any repository.
	Dedup bool
	// Plain keeps every chunk as it is; else each is stored in the shortest form.
	Plain bool
	// OnlyV1 answers 404 for version 2 of the reconstruction.
	OnlyV1 bool
	// Joint refuses a single range of a URL that was signed for several.
	Joint bool
	// Redacted lists "redacted" where the names of files belong.
	Redacted bool
	// Spool keeps what was compressed, instead of memory. Whoever gives it removes it.
	Spool *os.File
	// NoFooter and NoLength leave out the footer of xorbs, and their length in
	// Content-Range.
	NoFooter, NoLength bool
}

// chunk is a record of a xorb. One that is stored as it is keeps no bytes, but where
// its file has them: a model of 60 GB costs little.
type chunk struct {
	xet.Node
	scheme xet.Scheme
	body   io.ReaderAt // has the stored bytes, from off on
	off    int64
	length int
}

func (c *chunk) stored() int64 { return 8 + int64(c.length) }

func (c *chunk) record() []byte {
	header := xet.AppendHeader(nil, c.scheme, c.length, int(c.Size))
	out := append(header, make([]byte, c.length)...)
	mustRead(c.body, out[len(header):], c.off)
	return out
}

func mustRead(c io.ReaderAt, p []byte, off int64) {
	if n, err := c.ReadAt(p, off); n < len(p) {
		panic("hubtest: read content: " + err.Error())
	}
}

// xorb is a stored object: its records, and a footer.
type xorb struct {
	name   xet.Hash
	chunks []chunk
	ends   []int64 // of the records
	plain  int64
	footer []byte
}

func (x *xorb) records() int64 {
	if len(x.ends) == 0 {
		return 0
	}
	return x.ends[len(x.ends)-1]
}

func (x *xorb) add(c chunk) {
	x.chunks = append(x.chunks, c)
	x.ends = append(x.ends, x.records()+c.stored())
	x.plain += int64(c.Size)
}

// bytes returns where in the object the chunks [first, end) lie, last included.
func (x *xorb) bytes(first, end int) (from, last int64) {
	if first > 0 {
		from = x.ends[first-1]
	}
	return from, x.ends[end-1] - 1
}

// Size and ReadAt make the object Content.
func (x *xorb) Size() int64 { return x.records() + int64(len(x.footer)) }

func (x *xorb) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < x.records() {
		i := sort.Search(len(x.ends), func(i int) bool { return x.ends[i] > off })
		from, _ := x.bytes(i, i+1)
		k := copy(p[n:], x.chunks[i].record()[off-from:])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) && off < x.Size() {
		n += copy(p[n:], x.footer[off-x.records():])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (x *xorb) seal(withFooter bool) {
	f := footer{}
	for i, c := range x.chunks {
		f.Chunks = append(f.Chunks, c.Node)
		f.Ends = append(f.Ends, uint32(x.ends[i]))
	}
	x.name = xet.Root(f.Chunks)
	if f.Xorb = x.name; !withFooter {
		return
	}
	x.footer = appendFooter(nil, f)
	if _, err := parseFooter(x.footer); err != nil { // a reader is told how long it is
		panic("hubtest: " + err.Error())
	}
}

// spot is where a chunk of a file lies.
type spot struct {
	xorb  *xorb
	index int
}

// stored is a file of the store.
type stored struct {
	name  xet.Hash
	spots []spot
}

// store is everything that was uploaded. Server.mu is not held while it works; its
// own lock is the Server's uploads.
type store struct {
	files  map[xet.Hash]*stored
	xorbs  map[xet.Hash]*xorb
	chunks map[xet.Hash]spot
	open   *xorb // that the next file goes on with
	spool  int64 // bytes in Xet.Spool
}

func newStore() store {
	return store{files: make(map[xet.Hash]*stored), xorbs: make(map[xet.Hash]*xorb), chunks: make(map[xet.Hash]spot), open: &xorb{}}
}

// upload stores the LFS files of a commit, in the order of their paths, once.
func (s *Server) upload(tree map[string]*File) {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		f := tree[path]
		if f.xet == nil && s.lfs(f) && f.Content.Size() > 0 {
			f.xet = s.storeFile(f)
		}
	}
	s.sealOpen()
}

const mostChunks = 8192 // of a xorb, in the official client

func (s *Server) storeFile(file *File) *stored {
	content, f, nodes := file.Content, &stored{}, []xet.Node(nil)
	dedup := s.o.Xet.Dedup && !file.Anew
	buf := make([]byte, xet.MaxChunk)
	for off := int64(0); off < content.Size(); {
		data := buf[:min(int64(len(buf)), content.Size()-off)]
		mustRead(content, data, off)
		data = data[:xet.Current.Cut(data)]
		node := xet.Node{Hash: xet.ChunkHash(data), Size: uint64(len(data))}
		nodes = append(nodes, node)
		f.spots = append(f.spots, s.storeChunk(chunk{Node: node, body: content, off: off, length: len(data)}, data, dedup))
		off += int64(len(data))
	}
	f.name = xet.FileHash(nodes)
	s.store.files[f.name] = f
	return f
}

// storeChunk stores a chunk that is still as it is in its file.
func (s *Server) storeChunk(c chunk, data []byte, dedup bool) spot {
	if at, ok := s.store.chunks[c.Hash]; ok && dedup {
		return at
	}
	x := s.store.open
	if x.plain+int64(c.Size) > s.o.Xet.XorbSize || len(x.chunks) == mostChunks {
		s.sealOpen()
		x = s.store.open
	}
	if !s.o.Xet.Plain {
		s.compress(&c, data)
	}
	x.add(c)
	at := spot{x, len(x.chunks) - 1}
	s.store.chunks[c.Hash] = at
	return at
}

// compress puts a chunk into its shortest form, if that is shorter.
func (s *Server) compress(c *chunk, data []byte) {
	if s.o.Xet.Spool == nil {
		if f := remembered(c.Hash, data); f.body != nil {
			c.scheme, c.body, c.off, c.length = f.scheme, memory(f.body), 0, len(f.body)
		}
		return
	}
	f := shortest(data)
	if f.body == nil {
		return
	}
	if _, err := s.o.Xet.Spool.WriteAt(f.body, s.store.spool); err != nil {
		panic("hubtest: spool: " + err.Error())
	}
	c.scheme, c.body, c.off, c.length = f.scheme, s.o.Xet.Spool, s.store.spool, len(f.body)
	s.store.spool += int64(len(f.body))
}

func (s *Server) sealOpen() {
	if x := s.store.open; len(x.chunks) > 0 {
		x.seal(!s.o.Xet.NoFooter)
		s.store.xorbs[x.name] = x
	}
	s.store.open = &xorb{}
}

// compressed are the chunks that were, for the life of the process: a test binary
// that serves one model from many servers compresses it once.
var compressed sync.Map // xet.Hash -> form

type form struct {
	scheme xet.Scheme
	body   []byte
}

func remembered(name xet.Hash, data []byte) form {
	if f, ok := compressed.Load(name); ok {
		return f.(form)
	}
	f := shortest(data)
	compressed.Store(name, f)
	return f
}

// shortest compresses a chunk in each way; no body when none makes it shorter.
func shortest(data []byte) (best form) {
	grouped := make([]byte, len(data))
	xet.Regroup(grouped, data)
	for s, in := range [][]byte{xet.LZ4: data, xet.BG4LZ4: grouped} {
		if in == nil {
			continue
		}
		if out := frame(in); len(out) < len(data) && (best.body == nil || len(out) < len(best.body)) {
			best = form{xet.Scheme(s), out}
		}
	}
	return best
}

func frame(p []byte) []byte {
	out := &buffer{}
	w := lz4.NewWriter(out)
	if err := w.Apply(lz4.ChecksumOption(false), lz4.BlockSizeOption(lz4.Block256Kb)); err != nil {
		panic("hubtest: " + err.Error())
	}
	w.Write(p) // to memory: can't fail
	w.Close()
	return *out
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) { *b = append(*b, p...); return len(p), nil }

// fileOf returns the stored form of a file of a commit; nil when it has none.
func (s *Server) fileOf(f *File, tree map[string]*File) *stored {
	if s.o.Xet == nil || !s.lfs(f) || f.Content.Size() == 0 {
		return nil
	}
	s.upload(tree)
	return f.xet
}

// Stored returns how many bytes of xorbs a reader of a commit needs: of every chunk
// of its files once.
func (s *Server) Stored(id, commit string) (n int64) {
	s.mu.Lock()
	tree := s.mustRepo(id).commits[commit]
	s.mu.Unlock()
	need := make(map[spot]bool)
	for _, f := range tree {
		if at := s.fileOf(f, tree); at != nil {
			for _, p := range at.spots {
				need[p] = true
			}
		}
	}
	for p := range need {
		n += p.xorb.chunks[p.index].stored()
	}
	return n
}

// StoreSize returns how many bytes the records of all xorbs have.
func (s *Server) StoreSize() (n int64) {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	for _, x := range s.store.xorbs {
		n += x.records()
	}
	return n
}

// FirstXorb returns the name of the xorb that has a file's first chunk, for faults
// of the route Xorb.
func (s *Server) FirstXorb(id, commit, path string) string {
	s.mu.Lock()
	tree := s.mustRepo(id).commits[commit]
	s.mu.Unlock()
	return s.fileOf(tree[path], tree).spots[0].xorb.name.String()
}
