package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

// anyName stands for names that nobody knows before: of readers, keys and chunks.
const anyName = "faceid-ingest-check"

// Rights lists what a Worker for the given accounts publishes to, an example of each kind:
// a user without the right to one of them cannot run it. Beside it subscribes to its
// inbox. What makes streams is not among it, for who has them needs no right to.
func Rights(js jetstream.JetStream, accounts []string) []string {
	r := rights{js: js, api: apiPrefix(js)}
	r.add(r.api + "INFO")
	for _, need := range streams.Table(1) {
		r.stream(need.Config.Name, "STREAM.INFO.%s")
	}

	for _, account := range accounts {
		for _, lane := range event.Lanes() {
			consumer := event.ConsumerName(account, lane)
			r.stream(lane.Stream(), "CONSUMER.CREATE.%s."+consumer+"."+event.LaneSubjects(account, lane),
				"CONSUMER.INFO.%s."+consumer, "CONSUMER.MSG.NEXT.%s."+consumer)
			if lane != event.Parked {
				r.stream(lane.Stream(), "CONSUMER.PAUSE.%s."+consumer)
			}
			r.add("$JS.ACK."+streams.NameIn(js, lane.Stream())+"."+consumer+".1.0.0.0.0", event.Subject(lane, account, result.Enhanced))
		}
		// Deadlines are looked for by readers of their own.
		r.stream(event.Stream, "CONSUMER.CREATE.%s."+anyName+"."+event.LaneSubjects(account, event.Live))
		r.add(event.DeadSubject(account, event.Expired))
	}
	r.stream(event.Stream, "CONSUMER.MSG.NEXT.%s."+anyName, "CONSUMER.DELETE.%s."+anyName, "STREAM.MSG.GET.%s", "STREAM.MSG.DELETE.%s")
	r.stream(event.ParkedStream, "STREAM.MSG.GET.%s", "STREAM.MSG.DELETE.%s")
	r.stream(event.DeadStream, "STREAM.MSG.GET.%s")
	r.stream(event.AdvisoryStream, "CONSUMER.CREATE.%s.reaper", "CONSUMER.MSG.NEXT.%s.reaper")
	r.add("$JS.ACK." + streams.NameIn(js, event.AdvisoryStream) + ".reaper.1.0.0.0.0")

	for _, need := range []streams.Need{streams.LedgerNeed(), streams.StateNeed(), streams.KeyringNeed()} {
		key := streams.SubjectIn(js, need) + anyName
		r.stream(need.Config.Name, "DIRECT.GET.%s."+key)
		r.add(r.keyValuePrefix() + key)
	}
	state := streams.StateNeed()
	r.stream(state.Config.Name, "CONSUMER.CREATE.%s."+anyName+"."+streams.SubjectIn(js, state)+"replica.>", "CONSUMER.DELETE.%s."+anyName)

	parked := streams.ParkedResultsNeed(1)
	r.stream(parked.Config.Name, "STREAM.MSG.GET.%s", "STREAM.PURGE.%s")
	r.add(streams.SubjectIn(js, parked)+"C."+anyName, streams.SubjectIn(js, parked)+"M."+anyName)
	return r.list
}

// apiPrefix returns where the API of JetStream is, with a dot at the end.
func apiPrefix(js jetstream.JetStream) string {
	switch o := js.Options(); {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	return jetstream.DefaultAPIPrefix
}

type rights struct {
	js   jetstream.JetStream
	api  string
	list []string
}

func (r *rights) add(subjects ...string) { r.list = append(r.list, subjects...) }

// stream adds subjects of the API that are about a stream.
func (r *rights) stream(name string, formats ...string) {
	for _, format := range formats {
		r.add(r.api + fmt.Sprintf(format, streams.NameIn(r.js, name)))
	}
}

// keyValuePrefix is before the subjects of keys that are written through another API than
// the usual one.
func (r *rights) keyValuePrefix() string {
	if r.api == jetstream.DefaultAPIPrefix {
		return ""
	}
	return r.api
}

// EnsureConsumers makes the consumers of a Worker that are missing. Those that are there
// are left alone: they are of a daemon that runs.
func EnsureConsumers(ctx context.Context, js jetstream.JetStream, accounts []string, ackWait time.Duration) error {
	for _, account := range accounts {
		for _, lane := range event.Lanes() {
			_, err := js.Consumer(ctx, lane.Stream(), event.ConsumerName(account, lane))
			if errors.Is(err, jetstream.ErrConsumerNotFound) {
				_, err = event.EnsureConsumer(ctx, js, account, lane, ackWait)
			}
			if err != nil {
				return fmt.Errorf("account %s, %s events: %w", account, lane, err)
			}
		}
	}
	_, err := event.EnsureReaper(ctx, js)
	return err
}
