package agent

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	var m meter
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	for i := range 61 { // a second at a time, looked at four times a second
		for q := range 4 {
			m.observe(at(float64(i)+float64(q)/4), int64(i)*100)
		}
	}
	if got := m.rate(); got < 95 || got > 105 {
		t.Errorf("steady rate %d, want about 100", got)
	}
	if len(m.samples) > 15 {
		t.Errorf("%d samples kept", len(m.samples))
	}
	if got := at(60.75).Sub(m.last); got != 750*time.Millisecond {
		t.Errorf("last byte %v ago", got)
	}
	for i := range 48 { // nothing more comes
		m.observe(at(61+float64(i)/4), 6000)
	}
	if got := m.rate(); got != 0 {
		t.Errorf("rate %d after 12 s without a byte", got)
	}
}

func TestMeterStart(t *testing.T) {
	var m meter
	if m.rate() != 0 {
		t.Error("rate without samples")
	}
	now := time.Unix(0, 0)
	m.observe(now, 1<<20)
	m.observe(now.Add(time.Millisecond), 1<<21)
	if m.rate() != 0 {
		t.Error("a rate over a millisecond means nothing")
	}
	m.observe(now.Add(500*time.Millisecond), 1<<21)
	if got := m.rate(); got != 2<<20 {
		t.Errorf("rate %d, want %d", got, 2<<20)
	}
}

// Sums hold whatever came twice or for another job.
func TestJobSums(t *testing.T) {
	j := Job{Total: 100, Here: 10}
	j.take(Progress{Upstream: 60, Peers: map[string]int64{"a": 50}})
	if j.Completed != 100 {
		t.Errorf("completed %d of 100", j.Completed)
	}
	j = Job{Total: 100, Here: 10, Status: Fetching}
	j.take(Progress{Upstream: 20, Peers: map[string]int64{"a": 30}, Missing: 1})
	j.finish()
	if j.Completed != 100 || j.Here != 50 || j.Missing != 0 {
		t.Errorf("%+v", j)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 90 * time.Second: "90 s", 3 * time.Minute: "3 min", 47 * time.Hour: "47 h", 49 * time.Hour: "2 days",
	} {
		if got := ageOf(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
