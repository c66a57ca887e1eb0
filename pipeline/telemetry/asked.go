package telemetry

import "github.com/prometheus/client_golang/prometheus"

// What somebody else counts is asked at every scrape.

// Build shows what is running.
func (m *Metrics) Build(version, commit, goVersion string) {
	m.gauges("build_info").of(version, commit, goVersion).Set(1)
}

// Spool shows how many bytes of media are in flight and how many may be.
func (m *Metrics) Spool(usage func() (used, quota int64)) {
	m.asked("spool_bytes", func() float64 {
		used, _ := usage()
		return float64(used)
	})
	m.asked("spool_quota_bytes", func() float64 {
		_, quota := usage()
		return float64(quota)
	})
}

func (m *Metrics) asked(name string, value func() float64) {
	d := described(name, "gauge")
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + d.Name, Help: d.Help}, value))
}

// Limit is what the limiter of one account does now.
type Limit struct {
	// Limit and Share are calls per second: of all replicas, and of this process.
	Limit, Share float64
	// Throttles is how often the API has throttled.
	Throttles uint64
}

// Limiters shows what the limiters do, by account; those of accounts that are not served
// are left out.
func (m *Metrics) Limiters(state func() map[string]Limit) {
	m.registry.MustRegister(&limiters{
		state: state, served: &m.accounts, limit: descOf("limiter_limit", "gauge"), share: descOf("limiter_share", "gauge"), throttles: descOf("limiter_throttles_total", "counter"),
	})
}

func descOf(name, kind string) *prometheus.Desc {
	d := described(name, kind)
	return prometheus.NewDesc(prefix+d.Name, d.Help, d.Labels, nil)
}

// limiters is the collector of Metrics.Limiters.
type limiters struct {
	state                   func() map[string]Limit
	served                  *named
	limit, share, throttles *prometheus.Desc
}

func (l *limiters) Describe(ch chan<- *prometheus.Desc) {
	ch <- l.limit
	ch <- l.share
	ch <- l.throttles
}

func (l *limiters) Collect(ch chan<- prometheus.Metric) {
	for account, s := range l.state() {
		if !l.served.has(account) {
			continue
		}
		ch <- prometheus.MustNewConstMetric(l.limit, prometheus.GaugeValue, s.Limit, account)
		ch <- prometheus.MustNewConstMetric(l.share, prometheus.GaugeValue, s.Share, account)
		ch <- prometheus.MustNewConstMetric(l.throttles, prometheus.CounterValue, float64(s.Throttles), account)
	}
}
