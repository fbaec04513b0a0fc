package pieces

// Part is the bytes [Off, Off+N) of one piece.
type Part struct{ Off, N int64 }

// SizeOf returns the bytes of all parts together.
func SizeOf(parts []Part) (n int64) {
	for _, p := range parts {
		n += p.N
	}
	return n
}
