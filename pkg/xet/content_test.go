package xet_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/xet"
)

// A byte of a xorb that comes flipped is noticed as soon as the xorb is whole,
// whatever the scheme; what was handed out of it is doubted, the piece at hand is
// tainted, and the next copy is right.
func TestFlippedByte(t *testing.T) {
	for _, path := range []string{"a.noise", "b.weights", "c.text"} {
		for _, at := range []int64{0, 1, 4, 9, 20, 3000, 200_000} { // version, lengths, scheme, frame, content
			for _, o := range []hubtest.Xet{{}, {NoFooter: true}, {XorbSize: mib / 2}} {
				if (o != (hubtest.Xet{}) || testing.Short()) && at < 100_000 {
					continue
				}
				files := slices.DeleteFunc(mixed(), func(f hubtest.File) bool { return f.Path != path })
				inWorld(t, o, files, func(t *testing.T, w *world) {
					hits := w.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.Xorb, At: at, Nth: 1})
					data, err := w.resume(w.source(nil), path, 3)
					if err != nil || !bytes.Equal(data, w.want(path, 0, w.file(path).Blob.Size)) {
						t.Errorf("%s byte %d: %d bytes, %v", path, at, len(data), err)
					}
					if hits() != 1 {
						t.Errorf("%s byte %d: %d hits", path, at, hits())
					}
					w.wantPlain(0)
				})
			}
		}
	}
}

// Of a xorb that files share, the file that has the flipped byte is noticed when it
// is whole, and the others are as they should be. Then the chunk that was wrong is
// named, with its host.
func TestFlippedByteOfSharedXorb(t *testing.T) {
	inWorld(t, hubtest.Xet{Plain: true}, mixed(), func(t *testing.T, w *world) {
		w.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.Xorb, At: 100_000, Nth: 1})
		s := w.source(nil)
		var bad *xet.ContentError
		a := w.file("a.noise")
		if _, err := w.read(s, a.Path, 0, a.Blob.Size); !errors.As(err, &bad) || bad.What != "file" {
			t.Errorf("got %v", err)
		}
		for _, f := range w.outline.Files[1:] {
			w.check(s, f.Path, 0, f.Blob.Size)
		}
		if len(w.doubted) != 1 || !slices.Equal(w.doubted[a.Blob], []int{0}) {
			t.Errorf("doubted %v", w.doubted)
		}
		w.check(s, a.Path, 0, a.Blob.Size)
		if w.log.count("chunk had come wrong") != 1 || w.log.count("from=cdn.test") != 1 {
			t.Errorf("log: %s", w.log.text.String())
		}
		w.wantPlain(0)
	})
}

// Of one file in several requests, as a member does that holds two seats, a xorb
// is checked when its last part comes; what came of it before is doubted.
func TestFlippedByteInParts(t *testing.T) {
	inWorld(t, hubtest.Xet{Plain: true, XorbSize: 10 * mib}, []hubtest.File{{Path: "a", Content: hubtest.Generated(1, 25*mib)}}, func(t *testing.T, w *world) {
		s := w.source(nil)
		w.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.Xorb, At: 5 * mib, Nth: 1})
		if got, err := w.read(s, "a", 0, 8*mib); err != nil || bytes.Equal(got, w.want("a", 0, 8*mib)) {
			t.Errorf("the first part: %v; it can't be seen to be wrong yet, and is", err)
		}
		_, err := w.read(s, "a", 8*mib, 8*mib)
		var bad *xet.ContentError
		if !errors.As(err, &bad) || bad.What != "xorb" {
			t.Errorf("the second part: %v", err)
		}
		if got := w.doubted[w.file("a").Blob]; !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("doubted %v", got)
		}
		w.check(s, "a", 0, 12*mib)
		w.wantPlain(0)
	})
}

// A xorb that is wrong twice comes by plain HTTP.
func TestWrongTwice(t *testing.T) {
	for _, path := range []string{"a.noise", "b.weights", "c.text"} {
		files := slices.DeleteFunc(mixed(), func(f hubtest.File) bool { return f.Path != path })
		inWorld(t, hubtest.Xet{}, files, func(t *testing.T, w *world) {
			hits := w.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.Xorb, At: 70_000})
			data, err := w.resume(w.source(nil), path, 5)
			if err != nil || !bytes.Equal(data, w.want(path, 0, w.file(path).Blob.Size)) || hits() != 2 {
				t.Errorf("%s: %d bytes, %v, %d hits", path, len(data), err, hits())
			}
			w.wantPlain(1)
			if w.log.count("falling back to plain HTTP") != 1 {
				t.Errorf("log: %s", w.log.text.String())
			}
		})
	}
}

// Where nothing may take the store's place, wrong is asked for three times, though all
// else of it works: nobody asks for ever.
func TestWrongForGood(t *testing.T) {
	files := slices.DeleteFunc(mixed(), func(f hubtest.File) bool { return f.Path != "a.noise" })
	inWorld(t, hubtest.Xet{}, files, func(t *testing.T, w *world) {
		hits := w.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.Xorb, At: 2 * mib})
		s, size := w.source(func(o *xet.SourceOptions) { o.Only = true }), w.file("a.noise").Blob.Size
		for try := 1; ; try++ {
			w.check(s, "a.noise", 0, mib)
			_, err := w.read(s, "a.noise", mib, size-mib)
			bad, ok := errors.AsType[*xet.ContentError](err)
			if !ok || bad.Permanent() != (try == 3) {
				t.Fatalf("try %d: %v", try, err)
			}
			if bad.Permanent() {
				break
			}
		}
		if hits() != 6 {
			t.Errorf("%d requests", hits())
		}
		w.wantPlain(0)
	})
}

// Where nobody says how long a xorb is, the file's own name shows the fault.
func TestFlippedByteWithoutLengths(t *testing.T) {
	files := slices.DeleteFunc(mixed(), func(f hubtest.File) bool { return f.Path != "a.noise" })
	inWorld(t, hubtest.Xet{NoLength: true, XorbSize: mib}, files, func(t *testing.T, w *world) {
		w.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.Xorb, At: 50_000, Nth: 2})
		s := w.source(nil)
		size := w.file("a.noise").Blob.Size
		_, err := w.read(s, "a.noise", 0, size)
		var bad *xet.ContentError
		if !errors.As(err, &bad) || bad.What != "file" || !bad.Tainted() || bad.Permanent() || len(bad.Hosts) != 1 {
			t.Errorf("got %v", err)
		}
		w.check(s, "a.noise", 0, size)
	})
}

// Bytes that were handed out, and are asked for again without having been doubted
// here, come another way: who took them found them wrong.
func TestNotBelieved(t *testing.T) {
	inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
		s := w.source(nil)
		size := w.file("a.noise").Blob.Size
		w.check(s, "a.noise", 0, size)
		w.wantPlain(0)
		w.check(s, "a.noise", 0, size)
		w.wantPlain(1)
		if w.log.count("not believed") != 1 {
			t.Errorf("log: %s", w.log.text.String())
		}
		w.check(w.source(nil), "a.noise", 0, size) // another job knows nothing of it
		w.wantPlain(1)
	})
}
