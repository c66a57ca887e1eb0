package event

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Names of what lives in JetStream. Other people's tools depend on them.
const (
	// Stream holds completion events.
	Stream = "FACEID"
	// DeadStream holds dead letters.
	DeadStream = "FACEID_DEAD"
)

// Lane tells live events from those of a backfill. Each lane of each account
// has a consumer of its own, so that a backfill never delays a live result.
type Lane string

const (
	// Live events come from checks that were finished just now.
	Live Lane = "live"
	// Backfill events come from lists of old tokens.
	Backfill Lane = "backfill"
)

// Lanes lists the lanes, the more urgent one first.
func Lanes() []Lane { return []Lane{Live, Backfill} }

func (l Lane) prefix() string {
	if l == Backfill {
		return "faceid.backfill."
	}
	return "faceid.completed."
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

// ConsumerName returns the durable consumer of an account's lane.
func ConsumerName(account string, lane Lane) string {
	return "ingest-" + account + "-" + string(lane)
}

// MessageID returns the Nats-Msg-Id of an event: JetStream drops a second event
// of the same token within the stream's duplicate window.
func MessageID(product result.Product, token string) string {
	return string(product) + ":" + token
}
