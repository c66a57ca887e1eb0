package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"
)

// Metrics are the daemon's own metrics. All methods may be called concurrently. What
// they are given for a label may be anything: what is not one of the label's closed set
// (a constant of this program, a documented code, an account or sink that was told with
// ServeAccount or ServeSink) is counted as Other.
type Metrics struct {
	registry        *prometheus.Registry
	accounts, sinks named

	deadline, due, paused, sinkUp   vector[prometheus.Gauge]
	deadStored, backlog, oldest     vector[prometheus.Gauge]
	expiry                          vector[prometheus.Gauge]
	parked, parkedBytes, quota      prometheus.Gauge
	strangers, inFlight, replicas   prometheus.Gauge
	reloaded                        prometheus.Gauge
	parks, dead, sinkErrors, events vector[prometheus.Counter]
	verdicts, calls, assets, bytes  vector[prometheus.Counter]
	unread, missing                 vector[prometheus.Counter]
	stages                          vector[prometheus.Observer]
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
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.deadline, m.due = m.gauges("nearest_deadline_seconds"), m.gauges("due_events")
	m.parked, m.parkedBytes, m.quota = m.gauge("parked_results"), m.gauge("parked_bytes"), m.gauge("parking_quota_bytes")
	m.parks, m.dead, m.deadStored = m.counters("parks_total"), m.counters("dead_letters_total"), m.gauges("dead_letters_stored")
	m.paused, m.sinkUp, m.sinkErrors = m.gauges("account_paused"), m.gauges("sink_up"), m.counters("sink_errors_total")
	m.strangers = m.gauge("unconfigured_events")

	m.unread, m.missing = m.counters("unread_fields_total"), m.counters("missing_parts_total")
	m.events, m.inFlight = m.counters("events_total"), m.gauge("events_in_flight")
	m.backlog, m.oldest = m.gauges("backlog_events"), m.gauges("oldest_event_seconds")
	m.stages, m.replicas = m.histograms("stage_seconds"), m.gauge("replicas")

	m.verdicts, m.calls = m.counters("verdicts_total"), m.counters("api_calls_total")
	m.assets, m.bytes = m.counters("assets_total"), m.counters("asset_bytes_total")

	m.expiry, m.reloaded = m.gauges("expiry_timestamp_seconds"), m.gauge("config_last_reload_successful")
	m.reloaded.Set(1)
	return m
}

func (m *Metrics) counters(name string) vector[prometheus.Counter] {
	d := described(name, "counter")
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + d.Name, Help: d.Help}, d.Labels)
	m.registry.MustRegister(c)
	return vector[prometheus.Counter]{c, m.setsOf(d)}
}

func (m *Metrics) gauges(name string) vector[prometheus.Gauge] {
	d := described(name, "gauge")
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + d.Name, Help: d.Help}, d.Labels)
	m.registry.MustRegister(g)
	return vector[prometheus.Gauge]{g, m.setsOf(d)}
}

func (m *Metrics) gauge(name string) prometheus.Gauge { return m.gauges(name).of() }

func (m *Metrics) histograms(name string) vector[prometheus.Observer] {
	d := described(name, "histogram")
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                            prefix + d.Name,
		Help:                            d.Help,
		Buckets:                         prometheus.ExponentialBuckets(0.005, 2, 15), // 5 ms to 82 s, for scrapers without native histograms
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, d.Labels)
	m.registry.MustRegister(h)
	return vector[prometheus.Observer]{h, m.setsOf(d)}
}

// ServeAccount makes an account's name a value of labels. It is called with names from
// the configuration only, before anything is counted for them.
func (m *Metrics) ServeAccount(name string) { m.accounts.add(name) }

// ServeSink does for a sink what ServeAccount does for an account.
func (m *Metrics) ServeSink(name string) { m.sinks.add(name) }

// Event counts one delivery.
func (m *Metrics) Event(account, lane string, outcome Outcome) {
	m.events.of(account, lane, string(outcome)).Inc()
}

// UnreadField counts one field that could not be read; source is what it stood in, event
// or answer.
func (m *Metrics) UnreadField(source, field string) { m.unread.of(source, field).Inc() }

// MissingPart counts one part that an ingested result has not, with the reason.
func (m *Metrics) MissingPart(account, reason string) { m.missing.of(account, reason).Inc() }

// Dead counts one dead letter.
func (m *Metrics) Dead(account, reason string) { m.dead.of(account, reason).Inc() }

// DeadStored sets how many dead letters of an account there are, by reason; other
// reasons have none. Reasons that somebody made up are added up.
func (m *Metrics) DeadStored(account string, byReason map[string]uint64) {
	m.deadStored.dropAccount(within(&m.accounts, account))
	sums := map[string]uint64{}
	for reason, n := range byReason {
		sums[within(closed["reason"], reason)] += n
	}
	for reason, n := range sums {
		m.deadStored.of(account, reason).Set(float64(n))
	}
}

// Call counts one call of the API; class is "ok" or the class of its error, code the
// API's, "ok", or "none" where no answer came.
func (m *Metrics) Call(account, action, class, code string) {
	m.calls.of(account, action, class, code).Inc()
}

// SinkError counts one failed call of a sink.
func (m *Metrics) SinkError(sink, class string) { m.sinkErrors.of(sink, class).Inc() }

// SinkUp sets whether a sink takes results.
func (m *Metrics) SinkUp(sink string, up bool) { m.sinkUp.of(sink).Set(oneIf(up)) }

// Asset counts one asset of an ingested result; inline says whether its bytes,
// of the given size, came with the answer.
func (m *Metrics) Asset(kind string, inline bool, size int64) {
	if !inline {
		m.assets.of(kind, "cos").Inc()
		return
	}
	m.assets.of(kind, "inline").Inc()
	m.bytes.of(kind).Add(float64(size))
}

// Verdict counts one ingested result; code is the label of faceid.VerdictLabel.
func (m *Metrics) Verdict(account, product string, passed bool, code string) {
	verdict := "failed"
	if passed {
		verdict = "passed"
	}
	m.verdicts.of(account, product, verdict, code).Inc()
}

// Stage records how long a stage took. If ctx is of a trace that is sampled, the
// trace is its exemplar.
func (m *Metrics) Stage(ctx context.Context, stage string, took time.Duration) {
	observer := m.stages.of(stage)
	span := trace.SpanContextFromContext(ctx)
	with, ok := observer.(prometheus.ExemplarObserver)
	if !ok || !span.IsSampled() {
		observer.Observe(took.Seconds())
		return
	}
	with.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": span.TraceID().String()})
}

// Parked counts one result that was parked.
func (m *Metrics) Parked(account string) { m.parks.of(account).Inc() }

// Parking sets how many results are parked, and how many bytes they take and may
// take.
func (m *Metrics) Parking(results int, bytes, quota int64) {
	m.parked.Set(float64(results))
	m.parkedBytes.Set(float64(bytes))
	m.quota.Set(float64(quota))
}

// AccountPaused sets whether this process has paused an account.
func (m *Metrics) AccountPaused(account string, paused bool) {
	m.paused.of(account).Set(oneIf(paused))
}

// Backlog sets how many events of an account's lane are not done.
func (m *Metrics) Backlog(account, lane string, events uint64) {
	m.backlog.of(account, lane).Set(float64(events))
}

// Oldest sets the age of an account's oldest event that is not done; nil means that
// there is none.
func (m *Metrics) Oldest(account string, age *time.Duration) {
	if age == nil {
		m.oldest.drop(account)
		return
	}
	m.oldest.of(account).Set(age.Seconds())
}

// Deadline sets the time left to an account's nearest deadline, which is negative
// once it is past.
func (m *Metrics) Deadline(account string, left time.Duration) {
	m.deadline.of(account).Set(left.Seconds())
}

// NoDeadline takes Deadline back: an account has no open event.
func (m *Metrics) NoDeadline(account string) { m.deadline.drop(account) }

// Due sets how many events of an account are nearer to their deadline than within
// says, one of 1h, 6h and 24h.
func (m *Metrics) Due(account, within string, events int) {
	m.due.of(account, within).Set(float64(events))
}

// Strangers sets how many events nobody takes.
func (m *Metrics) Strangers(n uint64) { m.strangers.Set(float64(n)) }

// Held moves the number of events this process holds.
func (m *Metrics) Held(by int) { m.inFlight.Add(float64(by)) }

// Replicas sets how many replicas this process sees alive.
func (m *Metrics) Replicas(n int) { m.replicas.Set(float64(n)) }

// Reloaded sets whether the configuration file was accepted when it was last read.
func (m *Metrics) Reloaded(accepted bool) { m.reloaded.Set(oneIf(accepted)) }

// Expires sets when a certificate or credential ends; a zero time means that it has no
// end.
func (m *Metrics) Expires(what string, at time.Time) {
	if at.IsZero() {
		m.expiry.drop(what)
		return
	}
	m.expiry.of(what).Set(float64(at.Unix()))
}

// Forget drops what the gauges say of an account that is not served any more. Counters
// stay.
func (m *Metrics) Forget(account string) {
	for _, gauges := range []vector[prometheus.Gauge]{m.deadline, m.due, m.paused, m.backlog, m.oldest, m.deadStored} {
		gauges.dropAccount(account)
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
