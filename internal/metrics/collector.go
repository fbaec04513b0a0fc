package metrics

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"p2pagent/internal/histogram"
)

// scrapeWait bounds one reading of the agent.
const scrapeWait = 5 * time.Second

// Read takes a sample. It is called once for each scrape.
type Read func(context.Context) (Sample, error)

// collector turns samples into series.
type collector struct {
	read  Read
	descs []*prometheus.Desc
}

func newCollector(read Read) *collector {
	c := &collector{read: read}
	for _, f := range families {
		c.descs = append(c.descs, prometheus.NewDesc(f.name, f.help, f.labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector. A scrape of an agent that can't be read
// fails as a whole: half of the truth would look like the whole.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), scrapeWait, errors.New("the agent did not say how it is in 5 s"))
	defer cancel()
	s, err := c.read(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.descs[0], err)
		return
	}
	for i, f := range families {
		if f.times != nil {
			out <- constHistogram(c.descs[i], f.times(&s))
			continue
		}
		f.read(&s, func(v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(c.descs[i], f.kind(), v, labels...)
		})
	}
}

func constHistogram(d *prometheus.Desc, c histogram.Counts) prometheus.Metric {
	buckets := make(map[float64]uint64, len(c.Buckets))
	for i, n := range c.Buckets {
		buckets[histogram.Bounds[i].Seconds()] = n
	}
	return prometheus.MustNewConstHistogram(d, c.Count, c.Sum.Seconds(), buckets)
}

func newRegistry(read Read) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(read), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Write writes what a scrape would get.
func Write(w io.Writer, read Read) error {
	list, err := newRegistry(read).Gather()
	if err != nil {
		return err
	}
	enc := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range list {
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	return nil
}
