package sqldb_test

import (
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

func TestSQLiteSuite(t *testing.T)   { suite(t, sqliteDB, sqliteTroubles()) }
func TestPostgresSuite(t *testing.T) { suite(t, postgresDB, postgresTroubles()) }
func TestMariaDBSuite(t *testing.T)  { suite(t, mariaDB, mariadbTroubles()) }

// suite runs beside the suites of the other systems, each of which sets its own
// server's settings.
func suite(t *testing.T, s system, troubles []sinktest.Trouble) {
	t.Parallel()
	p := newPool(t, s)
	sinktest.Run(t, sinktest.Factory{
		New:      func(t testing.TB) sinktest.Destination { return p.take(t) },
		Troubles: troubles,
	})
}

// provoke is sinktest.Trouble.Provoke.
type provoke func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled

// large is trouble with a large result.
func large(trouble provoke) provoke {
	return func(t testing.TB, env sinks.Env, r *result.Result) sinktest.Troubled {
		t.Helper()
		r.Raw = result.NewSensitive(strings.Repeat("x", 200_000))
		return trouble(t, env, r)
	}
}

// inTrouble opens a sink on a database of its own and gets it into trouble.
func inTrouble(s system, trouble func(t testing.TB, d *database, sink *sqldb.Sink) (heal func())) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		d := newDatabase(t, s)
		sink, err := d.cfg.Open(t.Context(), env)
		must(t, err)
		return sinktest.Troubled{Sink: sink, Heal: trouble(t, d, sink.(*sqldb.Sink))}
	}
}

// statements is trouble that statements make and, if there are some, heal. The sink
// connects anew, for some settings are those of connections.
func statements(s system, trouble, heal []string) provoke {
	return inTrouble(s, func(t testing.TB, d *database, sink *sqldb.Sink) func() {
		run := func(list []string) {
			d.exec(t, list...)
			reconnect(sink)
		}
		run(trouble)
		if heal == nil {
			return nil
		}
		return func() { run(heal) }
	})
}

// reconnect closes the connections of a sink that does nothing.
func reconnect(sink *sqldb.Sink) {
	sink.DB().SetMaxIdleConns(-1)
	sink.DB().SetMaxIdleConns(8)
}
