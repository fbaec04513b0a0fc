package cachefs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// contentRig is a begun blob of two and a half pieces, and its pieces.
func contentRig(t *testing.T) (*Cache, pieces.File, []byte, []pieces.Verified) {
	data := randomBytes(7, 10<<20)
	f := lfsFile("w", data)
	c := newRig(t).open(t)
	if err := c.Begin(t.Context(), repoA, []pieces.Blob{f.Blob}); err != nil {
		t.Fatal(err)
	}
	return c, f, data, cut(t, f.Blob, data)
}

func put(t *testing.T, c *Cache, v pieces.Verified) {
	t.Helper()
	if err := c.Put(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}

// soon is Await with a second of patience: 0 when nothing came.
func soon(t *testing.T, r *Content, off int64) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	n, err := r.Await(ctx, off)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return n
}

// A reader gets held pieces, in its own order, and the last byte only with the
// whole blob.
func TestContentWhileItLands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f, data, all := contentRig(t)
		r := c.Content(f.Blob)
		defer r.Close()
		size := f.Blob.Size
		check := func(off, want int64) {
			t.Helper()
			if got := soon(t, r, off); got != want {
				t.Errorf("from %d: %d bytes, want %d", off, got, want)
			}
		}
		check(0, 0)
		put(t, c, all[1])
		check(0, 0)
		check(4<<20+5, 4<<20-5)
		put(t, c, all[0])
		check(0, 8<<20)
		if r.Whole() != nil {
			t.Error("whole without its end")
		}
		go func() { time.Sleep(500 * time.Millisecond); put(t, c, all[2]) }()
		check(8<<20, 2<<20-1)
		check(size-1, 0)
		got := make([]byte, size-1)
		if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, data[:size-1]) {
			t.Errorf("read: %v, or other bytes", err)
		}
		go func() { time.Sleep(500 * time.Millisecond); c.Complete(context.Background(), f.Blob) }()
		check(size-1, 1)
		if whole, err := io.ReadAll(r.Whole()); err != nil || !bytes.Equal(whole, data) {
			t.Errorf("whole: %d bytes, %v", len(whole), err)
		}
		if len(c.bells.of) != 0 {
			t.Errorf("%d bells are left", len(c.bells.of))
		}
	})
}

// Where links don't work a whole blob is read from the snapshot that it lies in.
func TestContentOfAPlainFile(t *testing.T) {
	r, m := newRig(t), sharingModel(commitA)
	r.sys.hook = refusing(syscall.EPERM, durable.Symlink)
	c := r.open(t)
	checkPlain(t, r, mustFetch(t, c, m, "main"), m)
	for _, f := range m.outline.Files {
		content := c.Content(f.Blob)
		if f.Blob.Size > 0 && soon(t, content, 0) != f.Blob.Size {
			t.Errorf("%s is not read whole", f.Path)
		}
		content.Close()
	}
}

// What was read of a blob whose pieces are taken back is spoiled, and the reader
// hears of it before it can get the end, whatever becomes of the blob.
func TestContentSpoiled(t *testing.T) {
	for name, then := range map[string]func(*Cache, pieces.Blob, []pieces.Verified) error{
		"nothing": func(*Cache, pieces.Blob, []pieces.Verified) error { return nil },
		"fetched again": func(c *Cache, b pieces.Blob, all []pieces.Verified) error {
			for _, v := range all {
				if err := c.Put(context.Background(), v); err != nil {
					return err
				}
			}
			return c.Complete(context.Background(), b)
		},
		"begun again": func(c *Cache, b pieces.Blob, all []pieces.Verified) error {
			return errors.Join(c.Abandon(b), c.Begin(context.Background(), repoA, []pieces.Blob{b}), c.Put(context.Background(), all[0]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, f, _, all := contentRig(t)
				put(t, c, all[0])
				old, fresh := c.Content(f.Blob), c.Content(f.Blob)
				defer old.Close()
				defer fresh.Close()
				if n := soon(t, old, 0); n != 4<<20 {
					t.Fatalf("%d bytes", n)
				}
				if err := errors.Join(c.Forget(f.Blob, func(pieces.Statement) bool { return true }), then(c, f.Blob, all)); err != nil {
					t.Fatal(err)
				}
				if n := c.TakenBack(); n != 1 {
					t.Errorf("%d pieces taken back", n)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := old.Await(ctx, 0); name != "nothing" && !errors.Is(err, ErrSpoiled) {
					t.Errorf("an old reader got %v, want that it is spoiled", err)
				}
				if n := soon(t, fresh, 0); (n > 0) != (name != "nothing") {
					t.Errorf("a new reader got %d bytes", n)
				}
			})
		})
	}
}
