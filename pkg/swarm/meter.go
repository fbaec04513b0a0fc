package swarm

import "time"

// meter measures a rate over the last few seconds.
type meter struct {
	buckets [meterSpan]int64
	last    int64 // unix second of the newest bucket
}

const meterSpan = 4

func (m *meter) add(now time.Time, bytes int64) {
	m.turn(now)
	m.buckets[now.Unix()%meterSpan] += bytes
}

// rate returns bytes a second, the current second left out: it is not over.
func (m *meter) rate(now time.Time) float64 {
	m.turn(now)
	var sum int64
	for i, b := range m.buckets {
		if int64(i) != now.Unix()%meterSpan {
			sum += b
		}
	}
	return float64(sum) / (meterSpan - 1)
}

func (m *meter) turn(now time.Time) {
	sec := now.Unix()
	for s := max(m.last+1, sec-meterSpan+1); s <= sec; s++ {
		m.buckets[s%meterSpan] = 0
	}
	m.last = max(m.last, sec)
}
