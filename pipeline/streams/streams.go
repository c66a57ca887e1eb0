// Package streams is about what the daemon keeps in JetStream: one table of the streams
// and buckets that it needs, how they are made where they are missing, what is asked of
// those that an operator has made, and which rights that takes.
//
// It looks before it creates. What is there and suffices is taken as it is, so that a
// user without the right to create streams can work; what is missing is made as large as
// the server's and the account's limits allow. What would lose something is named, with
// the value that is wrong and what to do.
package streams

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Names of the streams, as they are without another layout. A bucket is a stream, too.
const (
	// Events holds completion events.
	Events = "FACEID"
	// Dead holds dead letters.
	Dead = "FACEID_DEAD"
	// Parked holds the events of parked results. They do not age.
	Parked = "FACEID_PARKED"
	// Advisories holds what the server says of events that were delivered as often as
	// they may be.
	Advisories = "FACEID_ADVISORIES"

	// LedgerBucket says which sinks have the result of a token.
	LedgerBucket = "FACEID_LEDGER"
	// StateBucket says which daemons run, and what they see. It is in memory.
	StateBucket = "FACEID_STATE"
	// KeyringBucket says which keyring seals the results.
	KeyringBucket = "FACEID_KEYRING"
	// ParkedBucket is the object store of parked results.
	ParkedBucket = "FACEID_PARKED"

	keyValue    = "KV_"
	objectStore = "OBJ_"

	// advisoryPrefix is where a server publishes that a message was delivered as
	// often as it may be; the stream and the consumer follow.
	advisoryPrefix = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."
)

const (
	// eventAge is how long events stay: past the 72 hours of a result there must be time
	// to see why one was not ingested. leastAge is the least that a stream must keep
	// them for: a result lives that long.
	eventAge = 7 * 24 * time.Hour
	leastAge = 72 * time.Hour
	// deadAge is how long dead letters wait for somebody to look at them.
	deadAge = 365 * 24 * time.Hour
	// duplicates is the window in which JetStream drops a second event of one token: long
	// enough for a publisher that tries again.
	duplicates = 10 * time.Minute
	// ledgerAge is longer than an event stays in its stream.
	ledgerAge = 8 * 24 * time.Hour
	// stateAge is how long an entry lasts that nobody renews; with stateMost it would be
	// taken for true long after.
	stateAge   = time.Minute
	stateLeast = 10 * time.Second
	stateMost  = 10 * time.Minute

	// eventSize is the largest message with an event, in bytes: 64 KiB of body, and
	// headers. Of an operator's stream only what usual events need is asked.
	eventSize      = 128 << 10
	leastEventSize = 4 << 10
	// The largest entries of the buckets, in bytes. NATS itself takes no message above
	// 1 MiB by default.
	ledgerSize = 1 << 20
	stateSize  = 64 << 10
	markSize   = 4 << 10

	// smallBytes bounds what cannot grow much, in bytes.
	smallBytes = 8 << 20
)

// Need is a stream, or the stream of a bucket, that the daemon needs.
type Need struct {
	// Setting is where the configuration names it.
	Setting string
	// Config is how it is made where it is missing, except for its replicas and, if that
	// is 0, its MaxBytes.
	Config jetstream.StreamConfig

	// An existing one must keep messages for LeastAge, or forever if that is negative,
	// and must not keep them for longer than MostAge; 0 is as it comes.
	LeastAge, MostAge time.Duration
	// LeastMessage is the largest message that it must take, in bytes.
	LeastMessage int32
	// AnyStorage says that it may lie in memory, DropsOld that it may drop old messages
	// at its limits.
	AnyStorage, DropsOld bool
	// Deletes and Purges say that messages are taken off it so.
	Deletes, Purges bool
	// Quota is the setting that bounds it, if that is not nats.max_bytes. Where the server
	// cannot set so much aside it is made without a limit, for its writers mind the quota.
	Quota string
}

// Table lists what the daemon needs, in the order in which it is made: the small ones
// first, for the large ones take what is left. The parked results are bounded by quota, in
// bytes.
func Table(quota int64) []Need {
	return []Need{KeyringNeed(), StateNeed(), AdvisoriesNeed(), EventsNeed(), ParkedResultsNeed(quota), ParkedNeed(), DeadNeed(), LedgerNeed()}
}

// EventsNeed is the stream of completion events.
func EventsNeed() Need {
	return Need{
		Setting: "nats.streams.events", LeastAge: leastAge, LeastMessage: leastEventSize, Deletes: true,
		Config: jetstream.StreamConfig{
			Name:        Events,
			Description: "Completion events of FaceID tokens",
			Subjects:    []string{"faceid.completed.*.*", "faceid.backfill.*.*"},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			// A full stream refuses new events instead of dropping old ones: the publisher
			// can see it and try again.
			Discard:    jetstream.DiscardNew,
			MaxAge:     eventAge,
			Duplicates: duplicates,
			MaxMsgSize: eventSize,
		},
	}
}

// DeadNeed is the stream of dead letters.
func DeadNeed() Need {
	return Need{
		Setting: "nats.streams.dead", LeastAge: leastAge, LeastMessage: leastEventSize, Deletes: true,
		Config: jetstream.StreamConfig{
			Name:        Dead,
			Description: "FaceID events that were given up, with their reason",
			Subjects:    []string{"faceid.dead.*.*"},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			Discard:     jetstream.DiscardNew,
			MaxAge:      deadAge,
			// The letter of what is no event goes with the event; without this it is kept
			// without its body.
			AllowMsgTTL: true,
			Duplicates:  duplicates,
		},
	}
}

// ParkedNeed is the stream of the events of parked results.
func ParkedNeed() Need {
	return Need{
		Setting: "nats.streams.parked", LeastAge: forever, LeastMessage: leastEventSize, Deletes: true,
		Config: jetstream.StreamConfig{
			Name:        Parked,
			Description: "FaceID events whose results are parked until a sink takes them",
			Subjects:    []string{"faceid.parked.*.*"},
			// What is done must go by itself: these events have no age at which they do.
			Retention:  jetstream.WorkQueuePolicy,
			Storage:    jetstream.FileStorage,
			Discard:    jetstream.DiscardNew,
			Duplicates: duplicates,
			MaxMsgSize: eventSize,
		},
	}
}

// AdvisoriesNeed is the stream of the server's advisories.
func AdvisoriesNeed() Need {
	return Need{
		Setting: "nats.streams.advisories", LeastAge: leastAge,
		Config: jetstream.StreamConfig{
			Name:        Advisories,
			Description: "What the server says of FaceID events that no worker survives",
			Subjects:    []string{advisoryPrefix + Events + ".*"},
			Retention:   jetstream.WorkQueuePolicy,
			Storage:     jetstream.FileStorage,
			Discard:     jetstream.DiscardNew,
			MaxAge:      eventAge,
			MaxBytes:    smallBytes,
		},
	}
}

// LedgerNeed is the key-value bucket of the ledger.
func LedgerNeed() Need {
	n := bucket("nats.buckets.ledger", LedgerBucket, "Which sinks have the result of a token", ledgerAge, ledgerSize)
	n.LeastAge, n.DropsOld = leastAge, true
	// It only saves work: the oldest entry is of a token that is done.
	n.Config.Discard = jetstream.DiscardOld
	return n
}

// StateNeed is the key-value bucket of what is only true now.
func StateNeed() Need {
	n := bucket("nats.buckets.state", StateBucket, "The daemons that run, and what they see", stateAge, stateSize)
	n.LeastAge, n.MostAge, n.AnyStorage, n.DropsOld = stateLeast, stateMost, true, true
	n.Config.Storage, n.Config.MaxBytes = jetstream.MemoryStorage, smallBytes
	return n
}

// KeyringNeed is the key-value bucket of the keyring's fingerprint. It is a bucket of its
// own since it must outlive weeks in which no daemon runs.
func KeyringNeed() Need {
	n := bucket("nats.buckets.keyring", KeyringBucket, "Which keyring seals the results", 0, markSize)
	n.LeastAge = forever
	n.Config.MaxBytes = 1 << 20
	return n
}

// bucket returns what nats.go makes of a key-value bucket (ADR-8).
func bucket(setting, name, description string, age time.Duration, size int32) Need {
	return Need{
		Setting: setting, LeastMessage: size,
		Config: jetstream.StreamConfig{
			Name:              keyValue + name,
			Description:       description,
			Subjects:          []string{"$KV." + name + ".>"},
			Storage:           jetstream.FileStorage,
			Discard:           jetstream.DiscardNew,
			MaxMsgsPerSubject: 1,
			MaxAge:            age,
			MaxMsgSize:        size,
			AllowRollup:       true,
			DenyDelete:        true,
			AllowDirect:       true,
		},
	}
}

// ParkedResultsNeed is the object store of parked results, in the form of nats.go
// (ADR-20), which takes quota bytes.
func ParkedResultsNeed(quota int64) Need {
	return Need{
		Setting: "nats.buckets.parked", LeastAge: forever, Purges: true, Quota: "parking.quota",
		Config: jetstream.StreamConfig{
			Name:        objectStore + ParkedBucket,
			Description: "FaceID results that wait for a sink, sealed",
			Subjects:    []string{"$O." + ParkedBucket + ".C.>", "$O." + ParkedBucket + ".M.>"},
			Storage:     jetstream.FileStorage,
			Discard:     jetstream.DiscardNew,
			MaxBytes:    quota,
			AllowRollup: true,
			// A read that a replica answers may be older than what was parked just now.
			AllowDirect: false,
		},
	}
}

// forever is a LeastAge.
const forever = -1
