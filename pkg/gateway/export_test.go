package gateway

import "net/http"

// Viewed answers through the writer that Watch is told by.
func Viewed(w http.ResponseWriter, answer func(http.ResponseWriter)) {
	answer(&viewed{ResponseWriter: w})
}
