package sqldb_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// A tombstone of the schema's first version, which has no reason, holds and tells its
// time after the schema has changed; so it does where a process died in the middle of
// the change.
func TestTombstoneOfAnEarlierSchema(t *testing.T) {
	for _, test := range []struct {
		name string
		// before brings a database to where the change begins.
		before  []string
		systems []system
	}{
		{"first version", []string{
			"ALTER TABLE erased DROP COLUMN reason", "DROP TABLE keyring",
			"ALTER TABLE results DROP COLUMN unreadable", "ALTER TABLE results DROP COLUMN unread", "ALTER TABLE results DROP COLUMN missing",
			"DELETE FROM goose_db_version WHERE version_id >= 2",
		}, systems},
		// Others change and note it in one transaction.
		{"died before it was noted", []string{"DELETE FROM goose_db_version WHERE version_id >= 2"}, []system{mariaDB}},
	} {
		for _, s := range test.systems {
			t.Run(test.name+"/"+s.name, func(t *testing.T) {
				d := newDatabase(t, s)
				r := sinktest.Archived(sinktest.Result(0))
				key := sinks.KeyOf(r.Product, r.Token)
				must(t, sinktest.Erase(t.Context(), d.reader, key))
				d.exec(t, append([]string{"UPDATE erased SET reason = NULL"}, test.before...)...)

				sink := d.open(t, env(t))
				held, err := sink.Holds(t.Context(), key)
				if err != nil || held.Erased == nil || held.Erased.Reason != "" || time.Since(held.Erased.At).Abs() > time.Hour {
					t.Errorf("%+v, %v", held, err)
				}
				if err := sink.Record(t.Context(), r); !errors.Is(err, sinks.ErrErased) {
					t.Errorf("another delivery: %v", err)
				}
			})
		}
	}
}

// What cannot be looked at is an error, and not nothing.
func TestHoldsWhatCannotBeRead(t *testing.T) {
	d := newDatabase(t, sqliteDB)
	sink := d.open(t, env(t))
	d.exec(t, "ALTER TABLE erased RENAME TO away")
	if held, err := sink.Holds(t.Context(), sinks.KeyOf("enhanced", "T-1")); err == nil || !strings.Contains(err.Error(), "look for a result") {
		t.Errorf("%+v, %v", held, err)
	}
}
