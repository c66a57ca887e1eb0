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

	parks        *prometheus.CounterVec
	parked       prometheus.Gauge
	parkedBytes  prometheus.Gauge
	parkingQuota prometheus.Gauge
	paused       *prometheus.GaugeVec
	deadline     *prometheus.GaugeVec
	due          *prometheus.GaugeVec
}

// Outcome is what became of one delivery of an event.
type Outcome string

// The outcomes of a delivery.
const (
	// Ingested means that every sink holds the result.
	Ingested Outcome = "ingested"
	// Known means that every sink had the result already.
	Known Outcome = "known"
	// Parked means that a sink does not take the result now: it is parked, and a new
	// event on the lane of parked ones is responsible for it.
	Parked Outcome = "parked"
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
	m.parks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "faceid_ingest_parks_total",
		Help: "Results that were parked because a sink did not take them, by account.",
	}, []string{"account"})
	m.parked = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "faceid_ingest_parked_results",
		Help: "Results that are parked now, of all replicas.",
	})
	m.parkedBytes = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "faceid_ingest_parked_bytes",
		Help: "Bytes that parked results take, of all replicas.",
	})
	m.parkingQuota = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "faceid_ingest_parking_quota_bytes",
		Help: "Bytes that parked results may take; from half of it on, results that have time are not pulled while a sink is down.",
	})
	m.paused = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "faceid_ingest_account_paused",
		Help: "Whether this process has paused an account because the API refuses all of its calls.",
	}, []string{"account"})
	m.deadline = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "faceid_ingest_nearest_deadline_seconds",
		Help: "Time until Tencent deletes the first result that is not stored, by account; absent while there is none.",
	}, []string{"account"})
	m.due = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "faceid_ingest_due_events",
		Help: "Events whose results are not stored and will be deleted within a time (1h, 6h, 24h), by account; those past it are counted, too.",
	}, []string{"account", "within"})
	m.strangers = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "faceid_ingest_unconfigured_events",
		Help: "Stored events of accounts that are not configured, which nobody takes.",
	})
	m.registry.MustRegister(m.parks, m.parked, m.parkedBytes, m.parkingQuota, m.paused, m.deadline, m.due, m.strangers, m.events, m.dead, m.calls, m.sinkErrors, m.sinkUp, m.assets, m.bytes, m.verdicts, m.stages, m.inFlight,
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

// Parked counts one result that was parked.
func (m *Metrics) Parked(account string) { m.parks.WithLabelValues(account).Inc() }

// Parking sets how many results are parked, and how many bytes they take and may
// take.
func (m *Metrics) Parking(results int, bytes, quota int64) {
	m.parked.Set(float64(results))
	m.parkedBytes.Set(float64(bytes))
	m.parkingQuota.Set(float64(quota))
}

// AccountPaused sets whether this process has paused an account.
func (m *Metrics) AccountPaused(account string, paused bool) {
	value := 0.0
	if paused {
		value = 1
	}
	m.paused.WithLabelValues(account).Set(value)
}

// Deadline sets the time left to an account's nearest deadline, which is negative
// once it is past.
func (m *Metrics) Deadline(account string, left time.Duration) {
	m.deadline.WithLabelValues(account).Set(left.Seconds())
}

// NoDeadline takes Deadline back: an account has no open event.
func (m *Metrics) NoDeadline(account string) { m.deadline.DeleteLabelValues(account) }

// Due sets how many events of an account are nearer to their deadline than within
// says, one of 1h, 6h and 24h.
func (m *Metrics) Due(account, within string, events int) {
	m.due.WithLabelValues(account, within).Set(float64(events))
}

// Strangers sets how many events nobody takes.
func (m *Metrics) Strangers(n uint64) { m.strangers.Set(float64(n)) }

// Held moves the number of events this process holds.
func (m *Metrics) Held(by int) { m.inFlight.Add(float64(by)) }
