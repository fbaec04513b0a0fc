package stall

import "time"

// slots divides the floor's window. A finer grain would judge a trickle a
// little sooner at the price of more timer wake-ups while a Read waits; with
// twelve, 60 s are judged every 5 s.
const slots = 12

// window counts the bytes of the last FloorWindow of waiting, in slots. It is a
// pure value: time is told to it.
type window struct {
	floor  int64
	slot   time.Duration    // 0: the floor is off
	bytes  [slots + 1]int64 // one more than the window, so that it never judges short
	at     int              // index of the current slot
	spent  time.Duration    // waited within the current slot
	passed int              // slots begun after the first, up to slots
}

func newWindow(l Limits) window {
	if l.FloorBytes <= 0 || l.FloorWindow <= 0 {
		return window{}
	}
	return window{floor: l.FloorBytes, slot: max(l.FloorWindow/slots, 1)}
}

// pass tells the window that d was spent waiting.
func (w *window) pass(d time.Duration) {
	if w.slot == 0 {
		return
	}
	w.spent += d
	for range min(w.spent/w.slot, slots+1) {
		w.at = (w.at + 1) % len(w.bytes)
		w.bytes[w.at] = 0
		w.passed = min(w.passed+1, slots)
	}
	w.spent %= w.slot
}

func (w *window) add(n int64) { w.bytes[w.at] += n }

// low tells whether a whole window has passed with fewer bytes than the floor.
func (w *window) low() (sum int64, low bool) {
	if w.slot == 0 || w.passed < slots {
		return 0, false
	}
	for _, n := range w.bytes {
		sum += n
	}
	return sum, sum < w.floor
}

// next returns how long until the window moves; 0 when the floor is off.
func (w *window) next() time.Duration {
	if w.slot == 0 {
		return 0
	}
	return w.slot - w.spent
}
