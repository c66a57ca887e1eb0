package telemetry

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Other is the value of a label for whatever is not in the label's set.
const Other = "other"

// set is what a label's value may be, beside Other.
type set interface{ has(value string) bool }

// fixed is a set that this program's constants and the vendor's documents make.
type fixed map[string]struct{}

func (f fixed) has(value string) bool { _, ok := f[value]; return ok }

// named is a set that grows with the configuration. It may be used concurrently.
type named struct{ names sync.Map }

func (n *named) has(value string) bool { _, ok := n.names.Load(value); return ok }
func (n *named) add(name string)       { n.names.Store(name, struct{}{}) }

// ends are what may have an end: keys of the configuration.
type ends struct{ sinks *named }

func (e ends) has(value string) bool {
	if name, ok := strings.CutPrefix(value, "sinks."); ok {
		name, part, _ := strings.Cut(name, ".")
		return e.sinks.has(name) && (part == "tls" || part == "credentials")
	}
	return value == "http.tls" || value == "nats.tls" || value == "nats.credentials"
}

// linked is what the linker says of this program; it is used once, by Build.
type linked struct{}

func (linked) has(string) bool { return true }

// setOf returns what a label of a metric may be. One that has no set is a mistake in
// this package.
func (m *Metrics) setOf(metric, label string) set {
	switch label {
	case "account":
		return &m.accounts
	case "sink":
		return &m.sinks
	case "what":
		return ends{&m.sinks}
	case "version", "commit", "goversion":
		return linked{}
	}
	// Two metrics may mean different things by one label.
	for _, key := range []string{metric + "/" + label, label} {
		if s, ok := closed[key]; ok {
			return s
		}
	}
	panic("telemetry: " + metric + " has the label " + label + ", of which no set of values is known")
}

// closed are the fixed sets, by label, or by metric and label.
var closed = map[string]fixed{
	"lane":    fixedOf(event.Lanes()...),
	"reason":  fixedOf(event.Reasons()...),
	"outcome": fixedOf(Ingested, Known, Parked, Erased, Retried, Buried, HandedBack),
	"stage":   fixedOf("pull", "extract", "open", "archive", "record", "notify", "event_to_ack"),
	"within":  fixedOf("1h", "6h", "24h"),
	"kind":    fixedOf(result.Image, result.Video, result.Audio, result.Unknown),
	"form":    fixedOf("inline", "cos"),
	"product": fixedOf(result.Products()...),
	"verdict": fixedOf("passed", "failed"),
	"action":  fixedOf(actions()...),

	"unread_fields_total/source": fixedOf("event", "answer"),
	"unread_fields_total/field":  fixedOf(append(faceid.AnswerFields(), fieldsOf(event.Fields())...)...),

	"missing_parts_total/reason": fixedOf(result.MissingReasons()...),

	"api_calls_total/class":   fixedOf(append(faceid.Classes(), "ok")...),
	"api_calls_total/code":    fixedOf(apiCodes()...),
	"sink_errors_total/class": fixedOf(sinks.ClassTransient, sinks.ClassThrottled, sinks.ClassWaiting, sinks.ClassPermanent, sinks.ClassErased, sinks.ClassCanceled),
	"verdicts_total/code":     fixedOf(verdictCodes()...),
}

func fieldsOf(fields []event.Field) []string {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = string(f)
	}
	return list
}

func fixedOf[T ~string](values ...T) fixed {
	s := make(fixed, len(values))
	for _, v := range values {
		s[string(v)] = struct{}{}
	}
	return s
}

func actions() []string {
	list := make([]string, 0, len(result.Products()))
	for _, p := range result.Products() {
		list = append(list, faceid.Action(p))
	}
	return list
}

func apiCodes() []string {
	documented := faceid.APICodes()
	list := make([]string, 0, 2+len(documented))
	list = append(list, "ok", "none")
	for _, c := range documented {
		list = append(list, c.Code)
	}
	return list
}

func verdictCodes() []string {
	list := []string{"0", faceid.UnreadableLabel}
	for _, c := range faceid.ResultCodes() {
		if c.Code != 0 {
			list = append(list, c.Label())
		}
	}
	return list
}

// vector are the series of one metric. It is the only way to one that has labels, and
// what is not in a label's set becomes Other: nothing that came over a wire is ever a
// label's value, whoever passes it.
type vector[T any] struct {
	client interface {
		WithLabelValues(values ...string) T
		DeleteLabelValues(values ...string) bool
		DeletePartialMatch(labels prometheus.Labels) int
	}
	sets []set
}

// of returns the series of the values, which it changes.
func (v vector[T]) of(values ...string) T { return v.client.WithLabelValues(v.bound(values)...) }

// drop removes the series of the values, which it changes.
func (v vector[T]) drop(values ...string) { v.client.DeleteLabelValues(v.bound(values)...) }

// dropAccount removes all series of an account.
func (v vector[T]) dropAccount(name string) {
	v.client.DeletePartialMatch(prometheus.Labels{"account": name})
}

func (v vector[T]) bound(values []string) []string {
	for i, s := range v.sets {
		values[i] = within(s, values[i])
	}
	return values
}

func within(s set, value string) string {
	if s.has(value) {
		return value
	}
	return Other
}

// setsOf returns the sets of a metric's labels, in their order.
func (m *Metrics) setsOf(d Description) []set {
	all := make([]set, 0, len(d.Labels))
	for _, label := range d.Labels {
		all = append(all, m.setOf(d.Name, label))
	}
	return all
}
