package event

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

// Names of what lives in JetStream, where the operator does not call it otherwise
// (streams.Layout). Other people's tools depend on them.
const (
	// Stream holds completion events.
	Stream = streams.Events
	// DeadStream holds dead letters.
	DeadStream = streams.Dead
	// ParkedStream holds the events of parked results: those that are pulled and
	// wait for a sink. They do not age.
	ParkedStream = streams.Parked
	// AdvisoryStream holds what the server says of events that were delivered as
	// often as they may be: every worker that took them ended.
	AdvisoryStream = streams.Advisories
)

// Lane is one of the queues of an account. Each has a consumer of its own, so that
// a backfill never delays a live result, and what waits for a sink delays neither.
type Lane string

const (
	// Live events come from checks that were finished just now.
	Live Lane = "live"
	// Backfill events come from lists of old tokens.
	Backfill Lane = "backfill"
	// Parked events are those of results that were pulled and wait for a sink. Only
	// workers publish them.
	Parked Lane = "parked"
)

// Lanes lists the lanes, the more urgent one first.
func Lanes() []Lane { return []Lane{Live, Backfill, Parked} }

func (l Lane) prefix() string {
	switch l {
	case Backfill:
		return "faceid.backfill."
	case Parked:
		return "faceid.parked."
	default:
		return "faceid.completed."
	}
}

// Stream returns the stream that holds the lane's events.
func (l Lane) Stream() string {
	if l == Parked {
		return ParkedStream
	}
	return Stream
}

var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// CheckAccount reports whether name can be an account's name: it becomes part
// of subjects and consumer names.
func CheckAccount(name string) error {
	if !accountName.MatchString(name) {
		return fmt.Errorf("account name must be 1 to 32 of a-z, 0-9 and \"-\", and not begin with \"-\"")
	}
	return nil
}

// Subject returns where events of an account and product are published.
func Subject(lane Lane, account string, product result.Product) string {
	return lane.prefix() + account + "." + string(product)
}

// LaneSubjects returns the filter of all subjects of an account's lane.
func LaneSubjects(account string, lane Lane) string { return lane.prefix() + account + ".*" }

// ParseSubject is the reverse of Subject.
func ParseSubject(subject string) (Lane, string, result.Product, error) {
	for _, lane := range Lanes() {
		rest, ok := strings.CutPrefix(subject, lane.prefix())
		if !ok {
			continue
		}
		account, product, ok := strings.Cut(rest, ".")
		if !ok || CheckAccount(account) != nil || !result.Product(product).Valid() {
			break
		}
		return lane, account, result.Product(product), nil
	}
	return "", "", "", malformed("the subject is not %s<account>.<product> with product enhanced or eid", Live.prefix())
}

// SubjectAccount returns the account that takes what is published on a subject, whatever
// its product; ok is false if no account would.
func SubjectAccount(subject string) (account string, ok bool) {
	for _, lane := range Lanes() {
		rest, found := strings.CutPrefix(subject, lane.prefix())
		account, product, whole := strings.Cut(rest, ".")
		if found && whole && CheckAccount(account) == nil && product != "" && !strings.Contains(product, ".") {
			return account, true
		}
	}
	return "", false
}

// ConsumerName returns the durable consumer of an account's lane.
func ConsumerName(account string, lane Lane) string {
	return "ingest-" + account + "-" + string(lane)
}
