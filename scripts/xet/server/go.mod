module p2pagent/scripts/xet/server

go 1.26

require github.com/wzshiming/xet v0.0.0-20260617081805-02c9cfb4deca

require (
	github.com/gorilla/mux v1.8.1 // indirect
	github.com/klauspost/cpuid/v2 v2.0.12 // indirect
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
	github.com/zeebo/blake3 v0.2.4 // indirect
)
