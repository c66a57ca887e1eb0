// Package telemetry is what an operator sees of a running daemon: its metrics,
// and the admin endpoint that serves them beside health and readiness.
//
// Label values come from closed sets (accounts and sinks as configured, lanes,
// outcomes, classes), so the number of series is bounded whatever arrives. No
// metric holds a token or anything of a person.
package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics are the daemon's own metrics. All methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry

	events     *prometheus.CounterVec
	dead       *prometheus.CounterVec
	calls      *prometheus.CounterVec
	sinkErrors *prometheus.CounterVec
	sinkUp     *prometheus.GaugeVec
	assets     *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	verdicts   *prometheus.CounterVec
	stages     *prometheus.HistogramVec
	inFlight   prometheus.Gauge
	strangers  prometheus.Gauge
}

// Outcome is what became of one delivery of an event.
type Outcome string

// The outcomes of a delivery.
const (
	// Ingested means that every sink holds the result.
	Ingested Outcome = "ingested"
	// Known means that every sink had the result already.
	Known Outcome = "known"
	// Erased means that the result was erased before, and nothing is stored.
	Erased Outcome = "erased"
	// Retried means that the event will be delivered again later.
	Retried Outcome = "retried"
	// Buried means that the event became a dead letter.
	Buried Outcome = "dead"
	// HandedBack means that the worker stopped before it was done.
	HandedBack Outcome = "handed_back"
)

// New returns the metrics in a registry of their own, together with those of
// the Go runtime and the process.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "faceid_ingest_events_total",
			Help: "Deliveries of completion events, by account, lane and outcome.",
		}, []string{"account", "lane", "outcome"}),
		dead: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "faceid_ingest_dead_letters_total",
			Help: "Events that were given up, by account and reason.",
		}, []string{"account", "reason"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "faceid_ingest_api_calls_total",
			Help: "Calls of the FaceID API, by account, product and class of the answer (ok, or the class of the error).",
		}, []string{"account", "product", "class"}),
		sinkErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "faceid_ingest_sink_errors_total",
			Help: "Failed calls of sinks, by sink and class of the error.",
		}, []string{"sink", "class"}),
		sinkUp: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "faceid_ingest_sink_up",
			Help: "Whether a sink took what it was given last: 1, or 0 while results wait for it.",
		}, []string{"sink"}),
		assets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "faceid_ingest_assets_total",
			Help: "Assets of ingested results, by kind (image, video, audio, unknown) and form (inline, cos).",
		}, []string{"kind", "form"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "faceid_ingest_asset_bytes_total",
			Help: "Bytes of inline assets of ingested results, by kind.",
		}, []string{"kind"}),
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "faceid_ingest_verdicts_total",
			Help: "Ingested results, by account, product and whether the person passed.",
		}, []string{"account", "product", "passed"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "faceid_ingest_stage_seconds",
			Help:                            "Time a stage took for one event (pull, archive, record, notify, event_to_ack), retries in place included.",
			Buckets:                         prometheus.ExponentialBuckets(0.005, 4, 8), // 5 ms to 82 s, for scrapers without native histograms
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"stage"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "faceid_ingest_events_in_flight",
			Help: "Events this process holds now.",
		}),
	}
	m.strangers = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "faceid_ingest_unconfigured_events",
		Help: "Stored events of accounts that are not configured, which nobody takes.",
	})
	m.registry.MustRegister(m.strangers, m.events, m.dead, m.calls, m.sinkErrors, m.sinkUp, m.assets, m.bytes, m.verdicts, m.stages, m.inFlight,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Spool shows how many bytes of media are in flight and how many may be; usage
// is asked at every scrape.
func (m *Metrics) Spool(usage func() (used, quota int64)) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.registry.MustRegister(
		gauge("faceid_ingest_spool_bytes", "Bytes of inline media in flight.", func() float64 {
			used, _ := usage()
			return float64(used)
		}),
		gauge("faceid_ingest_spool_quota_bytes", "Bytes of inline media that may be in flight before pulling waits.", func() float64 {
			_, quota := usage()
			return float64(quota)
		}),
	)
}

// Event counts one delivery.
func (m *Metrics) Event(account, lane string, outcome Outcome) {
	m.events.WithLabelValues(account, lane, string(outcome)).Inc()
}

// Dead counts one dead letter.
func (m *Metrics) Dead(account, reason string) { m.dead.WithLabelValues(account, reason).Inc() }

// Call counts one call of the API; class is "ok" or the class of its error.
func (m *Metrics) Call(account, product, class string) {
	m.calls.WithLabelValues(account, product, class).Inc()
}

// SinkError counts one failed call of a sink.
func (m *Metrics) SinkError(sink, class string) { m.sinkErrors.WithLabelValues(sink, class).Inc() }

// SinkUp sets whether a sink takes results.
func (m *Metrics) SinkUp(sink string, up bool) {
	value := 0.0
	if up {
		value = 1
	}
	m.sinkUp.WithLabelValues(sink).Set(value)
}

// Asset counts one asset of an ingested result; inline says whether its bytes,
// of the given size, came with the answer.
func (m *Metrics) Asset(kind string, inline bool, size int64) {
	if !inline {
		m.assets.WithLabelValues(kind, "cos").Inc()
		return
	}
	m.assets.WithLabelValues(kind, "inline").Inc()
	m.bytes.WithLabelValues(kind).Add(float64(size))
}

// Verdict counts one ingested result.
func (m *Metrics) Verdict(account, product string, passed bool) {
	value := "false"
	if passed {
		value = "true"
	}
	m.verdicts.WithLabelValues(account, product, value).Inc()
}

// Stage records how long a stage took.
func (m *Metrics) Stage(stage string, took time.Duration) {
	m.stages.WithLabelValues(stage).Observe(took.Seconds())
}

// Strangers sets how many events nobody takes.
func (m *Metrics) Strangers(n uint64) { m.strangers.Set(float64(n)) }

// Held moves the number of events this process holds.
func (m *Metrics) Held(by int) { m.inFlight.Add(float64(by)) }
