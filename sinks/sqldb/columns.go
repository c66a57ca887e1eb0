package sqldb

import (
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// The tables. The names of personal columns are those of privacy.Field.
var (
	results = table[privacy.Record]{"results", join(
		[]column[privacy.Record]{
			{hashColumn, func(r *privacy.Record) any { return &r.TokenHash }},
			{"product", func(r *privacy.Record) any { return &r.Product }},
			{"token", func(r *privacy.Record) any { return text(&r.Token) }},
			{"account", func(r *privacy.Record) any { return text(&r.Account) }},
			{"rule_id", func(r *privacy.Record) any { return text(&r.RuleID) }},
			{"request_id", func(r *privacy.Record) any { return text(&r.RequestID) }},
			{"fetched_at", func(r *privacy.Record) any { return instant(&r.FetchedAt) }},
			{"day", func(r *privacy.Record) any { return dayOf{&r.FetchedAt} }},
		},
		verdictColumns,
		[]column[privacy.Record]{
			{"unread", func(r *privacy.Record) any { return list(&r.Unread) }},
			{"missing", func(r *privacy.Record) any { return list(&r.Missing) }},
			{"id_type", func(r *privacy.Record) any { return &r.Person.IDType }},
			{"document_source", func(r *privacy.Record) any { return text(&r.Document.Source) }},
			{"answers", func(r *privacy.Record) any { return list(&r.Intention.Answers) }},
			{"answer_codes", func(r *privacy.Record) any { return list(&r.Intention.AnswerCodes) }},
		},
		personalColumns(personalOfResult),
		[]column[privacy.Record]{{"eid_id_type", func(r *privacy.Record) any { return text(&r.EID.IDType) }}},
		[]column[privacy.Record]{ // last, because it is large; a document has no index
			{string(privacy.Raw), func(r *privacy.Record) any { return text(&r.Raw.Value) }},
		},
	)}

	verdictColumns = []column[privacy.Record]{
		{"unreadable", func(r *privacy.Record) any { return &r.Verdict.Unreadable }},
		{"passed", func(r *privacy.Record) any { return &r.Verdict.Passed }},
		{"code", func(r *privacy.Record) any { return &r.Verdict.Code }},
		{"message", func(r *privacy.Record) any { return text(&r.Verdict.Message) }},
		{"liveness", func(r *privacy.Record) any { return &r.Verdict.Liveness }},
		{"liveness_message", func(r *privacy.Record) any { return text(&r.Verdict.LivenessMessage) }},
		{"liveness_mode", func(r *privacy.Record) any { return &r.Verdict.LivenessMode }},
		{"liveness_tags", func(r *privacy.Record) any { return list(&r.Verdict.LivenessTags) }},
		{"compare", func(r *privacy.Record) any { return &r.Verdict.Compare }},
		{"compare_message", func(r *privacy.Record) any { return text(&r.Verdict.CompareMessage) }},
		{"compare_library", func(r *privacy.Record) any { return text(&r.Verdict.CompareLibrary) }},
		{"similarity", func(r *privacy.Record) any { return text(&r.Verdict.Similarity) }},
		{"intention", func(r *privacy.Record) any { return text(&r.Verdict.Intention) }},
		{"intention_code", func(r *privacy.Record) any { return &r.Verdict.IntentionCode }},
		{"intention_message", func(r *privacy.Record) any { return text(&r.Verdict.IntentionMessage) }},
	}

	attempts = table[privacy.Attempt]{"attempts", join(
		[]column[privacy.Attempt]{
			{"at", func(a *privacy.Attempt) any { return instant(&a.Time) }},
			{"seq", func(a *privacy.Attempt) any { return text(&a.Seq) }},
			{"charged", func(a *privacy.Attempt) any { return &a.Charged }},
			{"code", func(a *privacy.Attempt) any { return &a.Code }},
			{"message", func(a *privacy.Attempt) any { return text(&a.Message) }},
			{"liveness_code", func(a *privacy.Attempt) any { return &a.LivenessCode }},
			{"liveness_message", func(a *privacy.Attempt) any { return text(&a.LivenessMessage) }},
			{"liveness_mode", func(a *privacy.Attempt) any { return &a.LivenessMode }},
			{"compare_code", func(a *privacy.Attempt) any { return &a.CompareCode }},
			{"compare_message", func(a *privacy.Attempt) any { return text(&a.CompareMessage) }},
			{"compare_library", func(a *privacy.Attempt) any { return text(&a.CompareLibrary) }},
			{"similarity", func(a *privacy.Attempt) any { return text(&a.Similarity) }},
		},
		personalColumns(personalOfAttempt),
	)}

	warnings = table[privacy.Warning]{"warnings", []column[privacy.Warning]{
		{"side", func(w *privacy.Warning) any { return text(&w.Side) }},
		{"code", func(w *privacy.Warning) any { return &w.Code }},
	}}

	assets = table[assetRow]{"assets", []column[assetRow]{
		{"field", func(a *assetRow) any { return text(&a.Field) }},
		{"kind", func(a *assetRow) any { return text(&a.Kind) }},
		{"content_type", func(a *assetRow) any { return text(&a.ContentType) }},
		{"size", func(a *assetRow) any { return &a.size }},
		{"sha256", func(a *assetRow) any { return text(&a.sha256) }},
		{"crc64", func(a *assetRow) any { return text(&a.crc64) }},
		{"cos_bucket", func(a *assetRow) any { return text(&a.cos.Bucket) }},
		{"cos_region", func(a *assetRow) any { return text(&a.cos.Region) }},
		{"cos_key", func(a *assetRow) any { return text(&a.cos.Key) }},
		{"receipts", func(a *assetRow) any { return list(&a.Stored) }},
	}}
)

// personal is a protected value that has columns of its own.
type personal[T any] struct {
	field privacy.Field
	at    func(*T) *privacy.Stored
}

var (
	personalOfResult = []personal[privacy.Record]{
		{privacy.Name, func(r *privacy.Record) *privacy.Stored { return &r.Person.Name }},
		{privacy.IDCard, func(r *privacy.Record) *privacy.Stored { return &r.Person.IDCard }},
		{privacy.Mobile, func(r *privacy.Record) *privacy.Stored { return &r.Person.Mobile }},
		{privacy.Location, func(r *privacy.Record) *privacy.Stored { return &r.Person.Location }},
		{privacy.Extra, func(r *privacy.Record) *privacy.Stored { return &r.Person.Extra }},
		{privacy.OCRName, func(r *privacy.Record) *privacy.Stored { return &r.Document.Name }},
		{privacy.OCRIDCard, func(r *privacy.Record) *privacy.Stored { return &r.Document.IDCard }},
		{privacy.OCRGender, func(r *privacy.Record) *privacy.Stored { return &r.Document.Gender }},
		{privacy.OCRNation, func(r *privacy.Record) *privacy.Stored { return &r.Document.Nation }},
		{privacy.OCRBirth, func(r *privacy.Record) *privacy.Stored { return &r.Document.Birth }},
		{privacy.OCRAddress, func(r *privacy.Record) *privacy.Stored { return &r.Document.Address }},
		{privacy.OCRAuthority, func(r *privacy.Record) *privacy.Stored { return &r.Document.Authority }},
		{privacy.OCRValidDate, func(r *privacy.Record) *privacy.Stored { return &r.Document.Valid }},
		{privacy.PassNo, func(r *privacy.Record) *privacy.Stored { return &r.Document.PassNo }},
		{privacy.VisaNum, func(r *privacy.Record) *privacy.Stored { return &r.Document.VisaNum }},
		{privacy.EIDCode, func(r *privacy.Record) *privacy.Stored { return &r.EID.Code }},
		{privacy.EIDSign, func(r *privacy.Record) *privacy.Stored { return &r.EID.Sign }},
	}

	personalOfAttempt = []personal[privacy.Attempt]{
		{privacy.AttemptName, func(a *privacy.Attempt) *privacy.Stored { return &a.Name }},
		{privacy.AttemptIDCard, func(a *privacy.Attempt) *privacy.Stored { return &a.IDCard }},
	}
)

// personalColumns are two for each value: itself and its blind index.
func personalColumns[T any](values []personal[T]) []column[T] {
	columns := make([]column[T], 0, 2*len(values))
	for _, p := range values {
		columns = append(columns,
			column[T]{string(p.field), func(v *T) any { return text(&p.at(v).Value) }},
			column[T]{indexColumn(p.field), func(v *T) any { return text(&p.at(v).Index) }})
	}
	return columns
}

func indexColumn(f privacy.Field) string { return string(f) + "_index" }

func join[T any](groups ...[]T) []T {
	var all []T
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

// assetRow is privacy.Asset flat.
type assetRow struct {
	privacy.Asset
	// size is nil for an asset in COS.
	size          *int64
	sha256, crc64 string
	cos           privacy.COSObject
}

func assetRows(assets []privacy.Asset) []assetRow {
	rows := make([]assetRow, len(assets))
	for i, a := range assets {
		rows[i].Asset = a
		if a.Inline != nil {
			rows[i].size, rows[i].sha256, rows[i].crc64 = &a.Inline.Size, a.Inline.SHA256, a.Inline.CRC64
		}
		if a.COS != nil {
			rows[i].cos = *a.COS
		}
	}
	return rows
}

func assetsOf(rows []assetRow) []privacy.Asset {
	assets := make([]privacy.Asset, 0, len(rows))
	for _, row := range rows {
		a := row.Asset
		if row.size != nil {
			a.Inline = &privacy.Digest{Size: *row.size, SHA256: row.sha256, CRC64: row.crc64}
		} else {
			a.COS = &privacy.COSObject{Bucket: row.cos.Bucket, Region: row.cos.Region, Key: row.cos.Key}
		}
		assets = append(assets, a)
	}
	return assets
}
