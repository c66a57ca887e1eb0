package sqldb_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb/dbtest"
)

// marked are names that some character set or some reading of SQL spoils.
var marked = []string{
	"张三丰", "欧阳娜娜", "𠮷田𠮷子", "㐂㛃䶮", "王\U0002B820", "😀", "👩‍👧‍👦", "a\x00b", "\x00", "\uFFFF", "\uFFFD", "\uFEFF张", "\U0010FFFF",
	"trailing  ", "  leading", "tab\tline\r\n", "\u3000全角\u3000", `back\slash\`, `quo'te"s` + "`", `'; DROP TABLE results; --`, `\'`,
	"$1 ? :x %s", "買い物", "éàü", "e\u0301", "Ω≈ç", "İı", "שלום", "한글", "\u202Eabc", "张·买买提", "¥€",
	"縗", "誠\\", "\u0160", "\\x41", "\\u0041", "E'\\n'", "NULL", "null",
}

// passes records results with the marked names, in clear, reads them back, finds them and
// erases them.
func passes(t *testing.T, cfg sinks.Config) error {
	t.Helper()
	rules := privacy.DefaultConfig()
	rules.Fields[privacy.Name], rules.Fields[privacy.AttemptName], rules.Fields[privacy.Raw] = privacy.Plain, privacy.Plain, privacy.Plain
	policy, err := privacy.NewPolicy(rules, keyring(t))
	must(t, err)
	e := env(t)
	e.Policy = policy

	opened, err := cfg.Open(t.Context(), e)
	if err != nil {
		return err
	}
	sink := opened.(*sqldb.Sink)
	defer func() { must(t, sink.Close(t.Context())) }()
	if err := sink.Check(t.Context()); err != nil {
		return err
	}

	for i, name := range marked {
		r := sinktest.Archived(sinktest.Result(i))
		r.Token, r.Account, r.RuleID, r.Verdict.Message = name, name, name, name
		r.Person.Name, r.Attempts[0].Name, r.Raw = result.NewSensitive(name), result.NewSensitive(name), result.NewSensitive(name)
		if err := sink.Record(t.Context(), r); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		must(t, sink.Record(t.Context(), r)) // and again

		key := sinks.KeyOf(r.Product, r.Token)
		rec, err := sink.Get(t.Context(), key)
		must(t, err)
		for place, got := range map[string]string{
			"token": rec.Token, "account": rec.Account, "rule": rec.RuleID, "message": rec.Verdict.Message,
			"name": rec.Person.Name.Value, "an attempt's name": rec.Attempts[0].Name.Value, "raw": rec.Raw.Value,
		} {
			if got != name {
				t.Errorf("%s %q came back as %q", place, name, got)
			}
		}
		if !rec.FetchedAt.Equal(r.FetchedAt) || !rec.Attempts[0].Time.Equal(r.Attempts[0].Time) {
			t.Errorf("times came back as %v and %v", rec.FetchedAt, rec.Attempts[0].Time)
		}
		if got := list(t, sink, sinks.Filter{Account: name}); len(got) != 1 || got[0] != name {
			t.Errorf("%q is found as %q", name, got)
		}
	}

	key := sinks.KeyOf(result.Enhanced, marked[0])
	must(t, sinktest.Erase(t.Context(), sink, key))
	if _, err := sink.Get(t.Context(), key); !errors.Is(err, sinks.ErrNotFound) {
		t.Errorf("after erasing: %v", err)
	}
	return nil
}

// judge compares the outcome with the words that it is to have, none for success.
func judge(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case words == "" && err != nil:
		t.Error(err)
	case words != "" && (err == nil || !strings.Contains(err.Error(), words)):
		t.Errorf("got %v, want %q", err, words)
	case err != nil && strings.Contains(err.Error(), "driver failed"):
		t.Errorf("no words for it: %v", err)
	}
}

// Text comes back as it went, whatever the owner has set, or the sink says what is to be
// done.
func TestPostgresText(t *testing.T) {
	t.Parallel()
	const holdsNot = "cannot hold every name: make another with CREATE DATABASE"
	for name, test := range map[string]struct {
		encoding string
		// settings are of the database, and statements run there first.
		settings, statements []string
		// query is added to the URL.
		query string
		words string
	}{
		"UTF8":                        {encoding: "UTF8"},
		"client GBK":                  {encoding: "UTF8", settings: []string{"client_encoding = GBK"}},
		"client GB18030":              {encoding: "UTF8", settings: []string{"client_encoding = GB18030"}},
		"client BIG5":                 {encoding: "UTF8", settings: []string{"client_encoding = BIG5"}},
		"client EUC_CN":               {encoding: "UTF8", settings: []string{"client_encoding = EUC_CN"}},
		"client LATIN1":               {encoding: "UTF8", settings: []string{"client_encoding = LATIN1"}},
		"client SQL_ASCII":            {encoding: "UTF8", settings: []string{"client_encoding = SQL_ASCII"}},
		"client GBK in the URL":       {encoding: "UTF8", query: "?client_encoding=GBK"},
		"CLIENT_ENCODING in the URL":  {encoding: "UTF8", query: "?CLIENT_ENCODING=LATIN1"},
		"SQL_ASCII":                   {encoding: "SQL_ASCII"},
		"SQL_ASCII, client GBK":       {encoding: "SQL_ASCII", settings: []string{"client_encoding = SQL_ASCII"}},
		"EUC_CN":                      {encoding: "EUC_CN", words: "EUC_CN, " + holdsNot},
		"EUC_CN, client UTF8":         {encoding: "EUC_CN", settings: []string{"client_encoding = UTF8"}, words: "EUC_CN, " + holdsNot},
		"LATIN1":                      {encoding: "LATIN1", words: "LATIN1, " + holdsNot},
		"LATIN9":                      {encoding: "LATIN9", words: "LATIN9, " + holdsNot},
		"WIN1252":                     {encoding: "WIN1252", words: "WIN1252, " + holdsNot},
		"EUC_JP":                      {encoding: "EUC_JP", words: "EUC_JP, " + holdsNot},
		"EUC_TW":                      {encoding: "EUC_TW", words: "EUC_TW, " + holdsNot},
		"MULE_INTERNAL":               {encoding: "MULE_INTERNAL", words: "such as to take text as UTF-8: make a database with CREATE DATABASE"},
		"dates of another form":       {encoding: "UTF8", settings: []string{"DateStyle = 'German, DMY'"}},
		"dates of SQL":                {encoding: "UTF8", settings: []string{"DateStyle = 'SQL, MDY'", "TimeZone = 'America/New_York'"}},
		"a time zone":                 {encoding: "UTF8", settings: []string{"TimeZone = 'Asia/Kathmandu'"}},
		"a time zone in the URL":      {encoding: "UTF8", query: "?timezone=Asia/Shanghai&datestyle=German"},
		"strings of old":              {encoding: "UTF8", settings: []string{"standard_conforming_strings = off", "backslash_quote = off", "escape_string_warning = on"}},
		"strings of old, simple":      {encoding: "UTF8", settings: []string{"standard_conforming_strings = off", "client_encoding = GBK"}, query: "?default_query_exec_mode=simple_protocol"},
		"prepared statements":         {encoding: "UTF8", settings: []string{"client_encoding = GBK", "DateStyle = Postgres"}, query: "?default_query_exec_mode=cache_statement"},
		"forms of output":             {encoding: "UTF8", settings: []string{"bytea_output = escape", "IntervalStyle = iso_8601", "extra_float_digits = 0", "xmloption = document"}},
		"serializable":                {encoding: "UTF8", settings: []string{"default_transaction_isolation = serializable", "default_transaction_deferrable = on"}},
		"row security off":            {encoding: "UTF8", settings: []string{"row_security = off"}},
		"a schema of its own":         {encoding: "UTF8", settings: []string{"search_path = own"}, statements: []string{"CREATE SCHEMA own"}},
		"a schema with odd letters":   {encoding: "UTF8", settings: []string{`search_path = "人脸 Ergebnis"`}, statements: []string{`CREATE SCHEMA "人脸 Ergebnis"`}},
		"a schema in the URL":         {encoding: "UTF8", query: "?search_path=own", statements: []string{"CREATE SCHEMA own"}},
		"options in the URL":          {encoding: "UTF8", query: "?options=-c%20search_path%3Down%20-c%20client_encoding%3DGBK", statements: []string{"CREATE SCHEMA own"}},
		"a schema that is not there":  {encoding: "UTF8", settings: []string{"search_path = elsewhere"}, words: "search_path names no schema that is there: create the schema"},
		"no schema":                   {encoding: "UTF8", settings: []string{"search_path = ''"}, words: "search_path names no schema that is there: create the schema"},
		"read-only":                   {encoding: "UTF8", settings: []string{"default_transaction_read_only = on"}, words: "it is read-only, as a standby is, or by default_transaction_read_only"},
		"a table of another program":  {encoding: "UTF8", statements: []string{"CREATE TABLE results (n integer)"}, words: "there are tables with the same names, of other programs"},
		"versions of another program": {encoding: "UTF8", statements: []string{"CREATE TABLE goose_db_version (id serial, version_id bigint, is_applied boolean, tstamp timestamp)", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (20250101000000, true)"}, words: "or by another program"},
		"no versions":                 {encoding: "UTF8", statements: []string{"CREATE TABLE goose_db_version (id serial, version_id bigint, is_applied boolean, tstamp timestamp)"}},
		"versions with a gap":         {encoding: "UTF8", statements: []string{"CREATE TABLE goose_db_version (id serial, version_id bigint, is_applied boolean, tstamp timestamp)", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (2, true)"}, words: "its table goose_db_version does not hold what faceid-ingest noted there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := dbtest.StartPostgresIn(t, test.encoding)
			u, err := url.Parse(address)
			must(t, err)
			for _, setting := range test.settings {
				test.statements = append(test.statements, "ALTER DATABASE "+strings.TrimPrefix(u.Path, "/")+" SET "+setting)
			}
			onServer(t, "pgx", address, test.statements...)

			err = passes(t, &sqldb.Postgres{URL: sinks.Secret(address + test.query), MaxConnections: 4})
			judge(t, err, test.words)
			if err == nil {
				if strings.Contains(test.query, "search_path") {
					address += test.query
				}
				inDatabase(t, openRaw(t, "pgx", address), "upper(encode(convert_to(token, 'UTF8'), 'hex'))")
			}
		})
	}
}

// A pooler that gives each transaction another connection does for a plain URL.
func TestPostgresThroughPgBouncer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		encoding string
		// pooler is pgbouncer's configuration, settings are the database's.
		pooler, settings []string
		// address changes the URL.
		address func(*url.URL)
		// away says that no server is behind the pooler.
		away  bool
		words string
	}{
		"transactions":               {},
		"one connection":             {pooler: []string{"default_pool_size = 1"}},
		"sessions":                   {pooler: []string{"pool_mode = session"}},
		"statements":                 {pooler: []string{"pool_mode = statement"}, words: "the pooler's pool_mode is statement, which bars transactions"},
		"client GBK":                 {settings: []string{"client_encoding = GBK", "DateStyle = German", "TimeZone = 'Asia/Shanghai'", "standard_conforming_strings = off"}, pooler: []string{"default_pool_size = 1"}},
		"client GBK of the pooler":   {pooler: []string{"database: client_encoding=GBK"}},
		"GBK when it connects":       {pooler: []string{"database: connect_query='SET client_encoding = GBK'"}},
		"EUC_CN":                     {encoding: "EUC_CN", words: "EUC_CN, cannot hold every name"},
		"LATIN1":                     {encoding: "LATIN1", words: "LATIN1, cannot hold every name"},
		"a schema in the URL":        {address: query("search_path=public"), words: "does not take what url says of search_path: set it at the server (ALTER ROLE"},
		"two settings in the URL":    {address: query("search_path=public&statement_timeout=9000"), words: "does not take what url says of search_path and statement_timeout"},
		"a schema that is ignored":   {address: query("search_path=public"), pooler: []string{"ignore_startup_parameters = search_path"}},
		"the simple protocol":        {address: query("default_query_exec_mode=simple_protocol")},
		"prepared statements":        {address: query("default_query_exec_mode=cache_statement"), pooler: []string{"default_pool_size = 1"}},
		"another database":           {address: func(u *url.URL) { u.Path += "_not_there" }, words: "the pooler knows no such database"},
		"another password":           {address: func(u *url.URL) { u.User = url.UserPassword("faceid", password) }, words: "the pooler refuses the user or the password"},
		"another user":               {address: func(u *url.URL) { u.User = url.UserPassword("nobody", password) }, words: "the pooler refuses the user or the password"},
		"a schema that is not there": {settings: []string{"search_path = elsewhere"}, words: "search_path names no schema that is there"},
		"no server": {
			away: true, pooler: []string{"server_login_retry = 1", "query_wait_timeout = 2", "server_connect_timeout = 1"},
			words: "to the server",
		},
		"timeouts": {pooler: []string{"server_reset_query_always = 1", "server_lifetime = 1", "server_idle_timeout = 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.encoding == "" {
				test.encoding = "UTF8"
			}
			direct := dbtest.StartPostgresIn(t, test.encoding)
			u, err := url.Parse(direct)
			must(t, err)
			for _, setting := range test.settings {
				onServer(t, "pgx", direct, "ALTER DATABASE "+strings.TrimPrefix(u.Path, "/")+" SET "+setting)
			}
			if test.away {
				u.Host = nobodyListens(t)
				direct = u.String()
			}
			u, err = url.Parse(dbtest.StartPgBouncer(t, direct, test.pooler...))
			must(t, err)
			if test.address != nil {
				test.address(u)
			}

			cfg := &sqldb.Postgres{URL: sinks.Secret(u.String()), MaxConnections: 4}
			if first, err := cfg.Open(t.Context(), env(t)); err == nil {
				must(t, first.Close(t.Context())) // the server's connections stay, with what it left there
			}
			err = passes(t, cfg)
			judge(t, err, test.words)
			hides(t, fmt.Sprint(err))
		})
	}
}

// nobodyListens is an address of which that is so.
func nobodyListens(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

func query(q string) func(*url.URL) { return func(u *url.URL) { u.RawQuery = q } }

// onServer runs statements that owe nothing to the package under test.
func onServer(t testing.TB, driver, source string, statements ...string) {
	t.Helper()
	d := &database{raw: openRaw(t, driver, source)}
	d.exec(t, statements...)
}

// TestMySQLText is not parallel: init_connect is the server's. It does not run for users
// who may all.
func TestMySQLText(t *testing.T) {
	for name, test := range map[string]struct {
		// init is init_connect, charset the database's own.
		init, charset string
		// query is added to the DSN.
		query string
		// statements run there first.
		statements []string
		words      string
	}{
		"latin1":                      {},
		"gbk":                         {charset: "gbk"},
		"utf8mb3":                     {charset: "utf8mb3"},
		"utf16":                       {charset: "utf16"},
		"SET NAMES gbk":               {init: "SET NAMES gbk", charset: "gbk"},
		"SET NAMES utf8":              {init: "SET NAMES utf8", charset: "utf8mb3"},
		"SET NAMES latin1":            {init: "SET NAMES latin1"},
		"SET NAMES big5":              {init: "SET NAMES big5"},
		"SET NAMES sjis":              {init: "SET NAMES sjis"},
		"SET CHARACTER SET gbk":       {init: "SET CHARACTER SET gbk"},
		"results in latin1":           {init: "SET character_set_results = latin1"},
		"results as they are":         {init: "SET character_set_results = NULL"},
		"a collation":                 {init: "SET collation_connection = utf8mb4_general_ci"},
		"charset in the DSN":          {query: "?charset=gbk"},
		"charset and collation there": {query: "?charset=latin1&collation=latin1_swedish_ci"},
		"sql_mode in the DSN":         {query: "?sql_mode=%27ANSI_QUOTES,NO_BACKSLASH_ESCAPES%27"},
		"no backslashes":              {init: "SET sql_mode = 'NO_BACKSLASH_ESCAPES'"},
		"another SQL":                 {init: "SET sql_mode = 'ANSI,ORACLE,PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE,IGNORE_SPACE'"},
		"a time zone":                 {init: "SET time_zone = '+05:45'"},
		"safe updates":                {init: "SET sql_safe_updates = 1, sql_select_limit = 1, sql_big_selects = 0, max_join_size = 1"},
		"no autocommit":               {init: "SET autocommit = 0"},
		"transactions in chains":      {init: "SET completion_type = 1"},
		"read-only transactions":      {init: "SET SESSION TRANSACTION READ ONLY"},
		"serializable":                {init: "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"},
		"strict InnoDB":               {init: "SET innodb_strict_mode = 1, foreign_key_checks = 0, unique_checks = 0"},
		"another engine":              {init: "SET default_storage_engine = MyISAM"},
		"init_connect that fails":     {init: "SET nothing = 1", words: "init_connect fails"},
		"a setting that is none":      {query: "?not_there=1", words: "does not know a setting"},
		"a table in utf8mb3": {
			statements: []string{"CREATE TABLE warnings (side longtext) CHARACTER SET utf8mb3"},
			words:      "its table warnings keeps text in the character set utf8mb3, which cannot hold every name: ALTER TABLE",
		},
		"versions of another program": {
			statements: []string{"CREATE TABLE goose_db_version (id bigint unsigned auto_increment primary key, version_id bigint, is_applied boolean, tstamp datetime)", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (20250101000000, 1)"},
			words:      "or by another program",
		},
		"versions with a gap": {
			statements: []string{"CREATE TABLE goose_db_version (id bigint unsigned auto_increment primary key, version_id bigint, is_applied boolean, tstamp datetime)", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (2, 1)"},
			words:      "its table goose_db_version does not hold what faceid-ingest noted there",
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := dbtest.StartMariaDB(t)
			dsn, err := mysql.ParseDSN(source)
			must(t, err)
			d := &database{system: mariaDB, raw: openRaw(t, "mysql", source)}
			if test.charset != "" {
				d.exec(t, "ALTER DATABASE CHARACTER SET "+test.charset)
			}
			user := ownerOf(t, d, dsn.DBName)
			d.exec(t, append(test.statements, `SET GLOBAL init_connect = "`+test.init+`"`)...)
			defer d.exec(t, "SET GLOBAL init_connect = ''")

			dsn.User, dsn.Passwd = user, "limited"
			err = passes(t, &sqldb.MySQL{DSN: sinks.Secret(dsn.FormatDSN() + test.query), MaxConnections: 2})
			judge(t, err, test.words)
			if err == nil {
				inDatabase(t, d.raw, "HEX(CONVERT(token USING utf8mb4))")
			}
		})
	}
}

// inDatabase looks whether others, too, would read what was recorded: what goes in wrong
// may come out right. hex is the hexadecimal form of a token in UTF-8.
func inDatabase(t *testing.T, raw *sql.DB, hex string) {
	t.Helper()
	rows, err := raw.QueryContext(t.Context(), "SELECT "+hex+" FROM results")
	must(t, err)
	defer rows.Close()
	stored := map[string]bool{}
	for rows.Next() {
		var token string
		must(t, rows.Scan(&token))
		stored[token] = true
	}
	must(t, rows.Err())

	for _, name := range marked[1:] { // the first was erased
		if !strings.ContainsAny(name, "\x00\uFFFF") && !stored[fmt.Sprintf("%X", name)] { // these are written in another way
			t.Errorf("%q is not in the database as such", name)
		}
	}
}

// ownerOf makes a user who may do all with one database, and nothing else.
func ownerOf(t testing.TB, d *database, name string) string {
	t.Helper()
	user := newUserName()
	d.exec(t, "CREATE USER "+user+" IDENTIFIED BY 'limited'", "GRANT ALL ON "+name+".* TO "+user)
	t.Cleanup(func() { d.exec(t, "DROP USER "+user) })
	return user
}
