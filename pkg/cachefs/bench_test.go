package cachefs

import (
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"

	"p2pagent/pkg/pieces"
)

// BenchmarkPut is what a fetch pays for each byte: writing, the running digest,
// and a share of the syncs.
func BenchmarkPut(b *testing.B) {
	for name, order := range map[string]func(i, n int) int{
		"in-order":     func(i, n int) int { return i },
		"out-of-order": func(i, n int) int { return n - 1 - i },
	} {
		b.Run(name, func(b *testing.B) {
			data := randomBytes(1, 64<<20)
			f := lfsFile("w.bin", data)
			ps := cut(b, f.Blob, data)
			c := newDiskRig(b).open(b)
			start(b, c)
			b.SetBytes(f.Blob.Size)
			for b.Loop() {
				b.StopTimer()
				if err := c.Abandon(f.Blob); err != nil {
					b.Fatal(err)
				}
				mustBegin(b, c, repoA, f.Blob)
				b.StartTimer()
				for i := range ps {
					if err := c.Put(b.Context(), ps[order(i, len(ps))]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkComplete is what is left when the last piece has come: the digest if it
// could not run along, and the sync.
func BenchmarkComplete(b *testing.B) {
	for name, order := range map[string]func(i, n int) int{
		"in-order": func(i, n int) int { return i },
		"cold":     func(i, n int) int { return n - 1 - i }, // nothing was hashed before
	} {
		b.Run(name, func(b *testing.B) {
			data := randomBytes(1, 64<<20)
			f := lfsFile("w.bin", data)
			ps := cut(b, f.Blob, data)
			c := newDiskRig(b).open(b)
			b.SetBytes(f.Blob.Size)
			for b.Loop() {
				b.StopTimer()
				if w := c.findWhole(f.Blob); w != nil {
					if err := c.hub.Remove(blobName(repoA.Folder(), f.Blob.Digest)); err != nil {
						b.Fatal(err)
					}
				}
				mustBegin(b, c, repoA, f.Blob)
				for i := range ps {
					if err := c.Put(b.Context(), ps[order(i, len(ps))]); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				mustComplete(b, c, f.Blob)
			}
		})
	}
}

// BenchmarkSmallBlobs is a repository of many small files: syncs count, not bytes.
// Calls at the same time share the filesystem's journal commits.
func BenchmarkSmallBlobs(b *testing.B) {
	for _, together := range []int{1, 16} {
		b.Run(fmt.Sprintf("together-%d", together), func(b *testing.B) {
			c := newDiskRig(b).open(b)
			var count atomic.Uint64
			b.SetParallelism(together / runtime.GOMAXPROCS(0))
			if together == 1 {
				for b.Loop() {
					smallBlob(b, c, count.Add(1))
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					smallBlob(b, c, count.Add(1))
				}
			})
		})
	}
}

func smallBlob(b *testing.B, c *Cache, i uint64) {
	data := randomBytes(i, 1000)
	f := gitFile("f", data)
	if err := c.Begin(b.Context(), repoA, []pieces.Blob{f.Blob}); err != nil {
		b.Error(err)
	}
	if err := c.Put(b.Context(), cut(b, f.Blob, data)[0]); err != nil {
		b.Error(err)
	}
	if err := c.Complete(b.Context(), f.Blob); err != nil {
		b.Error(err)
	}
}

func BenchmarkOpenPiece(b *testing.B) {
	data := randomBytes(1, 64<<20)
	f := lfsFile("w.bin", data)
	r := newDiskRig(b)
	leave(b, r, repoA, f.Blob, data)
	c := r.open(b)
	mustBegin(b, c, repoA, f.Blob)
	b.SetBytes(f.Blob.PieceSize())
	for i := 0; b.Loop(); i++ {
		r, err := c.OpenPiece(f.Blob, i%f.Blob.Pieces())
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != 4<<20 || err != nil {
			b.Fatal(n, err)
		}
		r.Close()
	}
}
