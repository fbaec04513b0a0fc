// Package stall turns a transfer that has stopped, or that crawls, into an
// error.
//
// A TCP connection whose peer or NAT has vanished delivers nothing and no
// error, for hours. The only trustworthy sign of life is bytes, so a Reader
// measures those: no byte for Limits.Idle, or too few in Limits.FloorWindow,
// and it closes the stream under the blocked Read. It counts only the time
// that Read spends waiting: a consumer that is slow, or that is held back by a
// rate limit, is never taken for a dead upstream.
package stall
