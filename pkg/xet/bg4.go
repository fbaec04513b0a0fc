package xet

import "encoding/binary"

// ungroup puts the bytes of src, which lie in four groups by their place modulo
// four, back into their order. Both have the same length.
func ungroup(dst, src []byte) {
	g0, g1, g2, g3 := groups(src)
	n := len(g3) // the shortest
	i := 0
	for ; i+2 <= n; i += 2 { // eight bytes at once
		binary.LittleEndian.PutUint64(dst[4*i:],
			uint64(g0[i])|uint64(g1[i])<<8|uint64(g2[i])<<16|uint64(g3[i])<<24|
				uint64(g0[i+1])<<32|uint64(g1[i+1])<<40|uint64(g2[i+1])<<48|uint64(g3[i+1])<<56)
	}
	for k, g := range [][]byte{g0, g1, g2, g3} {
		for j := i; j < len(g); j++ {
			dst[4*j+k] = g[j]
		}
	}
}

// Regroup is the opposite of what a reader does: it puts the bytes of src into
// four groups by their place modulo four.
func Regroup(dst, src []byte) {
	g0, g1, g2, g3 := groups(dst)
	for k, g := range [][]byte{g0, g1, g2, g3} {
		for i := range g {
			g[i] = src[4*i+k]
		}
	}
}

// groups cuts b into the groups; the first ones have one byte more when its length
// is no multiple of four.
func groups(b []byte) (g0, g1, g2, g3 []byte) {
	n := len(b)
	a, c, d := (n+3)/4, (n+2)/4, (n+1)/4
	return b[:a], b[a : a+c], b[a+c : a+c+d], b[a+c+d:]
}
