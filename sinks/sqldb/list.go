package sqldb

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// How many rows are read at a time. Between pages nothing is held open, however
// slow the reader is.
const (
	keysPage = 1000
	listPage = 200
)

// pages yields rows page by page. read returns those behind last, which is nil at
// first; fewer than size are the last ones.
func pages[T any](size int, read func(last *T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last *T
		for {
			page, err := read(last)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, v := range page {
				if !yield(v, nil) {
					return
				}
			}
			if len(page) < size {
				return
			}
			last = &page[len(page)-1]
		}
	}
}

var keys = table[sinks.Key]{results.name, []column[sinks.Key]{
	{"product", func(k *sinks.Key) any { return &k.Product }},
	{hashColumn, func(k *sinks.Key) any { return &k.Hash }},
}}

// Keys implements sinks.Keeper.
func (s *Sink) Keys(ctx context.Context, after sinks.Key) iter.Seq2[sinks.Key, error] {
	return func(yield func(sinks.Key, error) bool) {
		for _, product := range slices.Sorted(slices.Values(result.Products())) {
			if product < after.Product {
				continue
			}
			first := ""
			if product == after.Product {
				first = after.Hash
			}
			for key, err := range pages(keysPage, func(last *sinks.Key) ([]sinks.Key, error) {
				if last != nil {
					first = last.Hash
				}
				return s.keysOf(ctx, product, first)
			}) {
				if !yield(key, err) || err != nil {
					return
				}
			}
		}
	}
}

// keysOf returns a page of keys of one product.
func (s *Sink) keysOf(ctx context.Context, product result.Product, after string) ([]sinks.Key, error) {
	where := newConditions(s.dialect)
	where.add("product = ?", string(product))
	where.add(hashColumn+" > ?", after)
	err := s.prepare(ctx)
	var page []sinks.Key
	if err == nil {
		page, err = keys.query(ctx, s.db, where.sql()+" ORDER BY "+hashColumn+" LIMIT "+strconv.Itoa(keysPage), where.args...)
	}
	if err != nil {
		return nil, s.dialect.explain(ctx, "list keys", err)
	}
	return page, nil
}

var summaryColumns = []column[sinks.Summary]{
	{"results.product", func(r *sinks.Summary) any { return &r.Product }},
	{"results.token", func(r *sinks.Summary) any { return text(&r.Token) }},
	{"results.token_hash", func(r *sinks.Summary) any { return &r.TokenHash }},
	{"results.account", func(r *sinks.Summary) any { return text(&r.Account) }},
	{"results.rule_id", func(r *sinks.Summary) any { return text(&r.RuleID) }},
	{"results.fetched_at", func(r *sinks.Summary) any { return instant(&r.FetchedAt) }},
	{"results.passed", func(r *sinks.Summary) any { return &r.Passed }},
	{"results.code", func(r *sinks.Summary) any { return &r.Code }},
	{"results.message", func(r *sinks.Summary) any { return text(&r.Message) }},
	{"results.similarity", func(r *sinks.Summary) any { return text(&r.Similarity) }},
	{"results.intention", func(r *sinks.Summary) any { return text(&r.Intention) }},
	{"results.intention_code", func(r *sinks.Summary) any { return &r.IntentionCode }},
	{"(SELECT count(*) FROM assets WHERE assets.token_hash = results.token_hash)", func(r *sinks.Summary) any { return &r.Assets }},
}

// List implements sinks.RecordKeeper. Results of one time are in the reverse order
// of their token hashes. A blind index of a name or ID number finds a person
// whatever it was that had the value: the check, the document or an attempt.
func (s *Sink) List(ctx context.Context, filter sinks.Filter) iter.Seq2[sinks.Summary, error] {
	return func(yield func(sinks.Summary, error) bool) {
		listed := 0
		pages(listPage, func(last *sinks.Summary) ([]sinks.Summary, error) {
			size := listPage
			if filter.Limit > 0 {
				size = min(size, filter.Limit-listed)
			}
			page, err := s.list(ctx, filter, last, size)
			if err != nil {
				return nil, s.dialect.explain(ctx, "list results", err)
			}
			listed += len(page)
			return page, nil
		})(yield)
	}
}

// list returns a page of at most size results behind last, which may be nil.
func (s *Sink) list(ctx context.Context, filter sinks.Filter, last *sinks.Summary, size int) ([]sinks.Summary, error) {
	if err := s.prepare(ctx); err != nil || size == 0 {
		return nil, err
	}
	where := newConditions(s.dialect)
	from := results.name
	if filter.Index != "" {
		person, err := where.person(filter.IndexField, filter.Index)
		if err != nil {
			return nil, err
		}
		from = person + " JOIN " + results.name + " ON results.token_hash = person.token_hash"
	}
	where.filter(filter)
	if last != nil {
		at := s.dialect.timeArgument(last.FetchedAt)
		// The first condition alone is what the index serves.
		where.add("results.fetched_at <= ?", at)
		where.add("(results.fetched_at < ? OR results.token_hash < ?)", at, last.TokenHash)
	}
	t := table[sinks.Summary]{from, summaryColumns}
	return t.query(ctx, s.db, where.sql()+" ORDER BY results.fetched_at DESC, results.token_hash DESC LIMIT "+strconv.Itoa(size), where.args...)
}

// conditions are those of a WHERE clause, and the arguments of the statement so
// far.
type conditions struct {
	dialect *dialect
	all     []string
	args    []any
}

func newConditions(d *dialect) *conditions { return &conditions{dialect: d} }

// add adds a condition, in which each "?" stands for one argument.
func (c *conditions) add(condition string, args ...any) {
	c.all = append(c.all, c.place(condition, args...))
}

// place puts the dialect's placeholders into an expression.
func (c *conditions) place(expression string, args ...any) string {
	var b strings.Builder
	for _, r := range expression {
		if r != '?' {
			b.WriteRune(r)
			continue
		}
		b.WriteString(c.dialect.placeholder(len(c.args) + 1))
		c.args = append(c.args, args[0])
		args = args[1:]
	}
	return b.String()
}

func (c *conditions) sql() string {
	if len(c.all) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.all, " AND ")
}

func (c *conditions) filter(f sinks.Filter) {
	for _, bound := range []struct {
		condition string
		at        time.Time
	}{{"results.fetched_at >= ?", f.From}, {"results.fetched_at < ?", f.To}} {
		if !bound.at.IsZero() {
			c.add(bound.condition, c.dialect.timeArgument(bound.at))
		}
	}
	c.equal("results.account", f.Account)
	c.equal("results.rule_id", f.RuleID)
	if f.Product != "" {
		c.add("results.product = ?", string(f.Product))
	}
	if f.Passed != nil {
		c.add("results.passed = ?", *f.Passed)
	}
	switch {
	case f.Code == nil:
	case *f.Code == 0:
		c.add("results.code = ?", *f.Code)
	default:
		c.add("(results.code = ? OR results.intention_code = ?)", *f.Code, *f.Code)
	}
}

// equal compares a text column in a way that its index serves.
func (c *conditions) equal(column, value string) {
	if value == "" {
		return
	}
	value = withoutNUL.Replace(value)
	if c.dialect.prefix != "" {
		indexed := fmt.Sprintf(c.dialect.prefix, column)
		c.add(indexed+" = "+fmt.Sprintf(c.dialect.prefix, "?"), value)
	}
	c.add(column+" = ?", value)
}

// sameValue lists the fields that may hold a value of a field; they share their
// blind indexes, see privacy.Policy.Index.
var sameValue = [][]privacy.Field{
	{privacy.Name, privacy.OCRName, privacy.AttemptName},
	{privacy.IDCard, privacy.OCRIDCard, privacy.AttemptIDCard},
}

// person is a table of the tokens with a blind index: one index look-up for each
// column that may hold it.
func (c *conditions) person(field privacy.Field, index string) (string, error) {
	fields := []privacy.Field{field}
	for _, group := range sameValue {
		if slices.Contains(group, field) {
			fields = group
		}
	}
	var found []string
	for _, f := range fields {
		switch {
		case slices.ContainsFunc(personalOfResult, func(p personal[privacy.Record]) bool { return p.field == f }):
			found = append(found, c.place("SELECT token_hash FROM results WHERE "+indexColumn(f)+" = ?", index))
		case slices.ContainsFunc(personalOfAttempt, func(p personal[privacy.Attempt]) bool { return p.field == f }):
			found = append(found, c.place("SELECT token_hash FROM attempts WHERE "+indexColumn(f)+" = ?", index))
		case f == privacy.Answer:
			found = append(found, c.place("SELECT token_hash FROM results WHERE answers LIKE ?", `%"`+index+`"%`))
		default:
			return "", &knownError{fmt.Sprintf("results cannot be found by the field %q: it has no blind index", string(f))}
		}
	}
	return "(" + strings.Join(found, " UNION ") + ") AS person", nil
}
