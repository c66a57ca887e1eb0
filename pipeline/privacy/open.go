package privacy

import (
	"errors"
	"fmt"
	"slices"
)

// Each calls do for every personal value of r, empty ones too, with its field and
// its position in a list. do may change the value. The first error ends it.
func (r *Record) Each(do func(f Field, position int, s *Stored) error) error {
	values := []struct {
		field Field
		value *Stored
	}{
		{Name, &r.Person.Name}, {IDCard, &r.Person.IDCard}, {Mobile, &r.Person.Mobile},
		{Location, &r.Person.Location}, {Extra, &r.Person.Extra},
		{OCRName, &r.Document.Name}, {OCRIDCard, &r.Document.IDCard}, {OCRGender, &r.Document.Gender},
		{OCRNation, &r.Document.Nation}, {OCRBirth, &r.Document.Birth}, {OCRAddress, &r.Document.Address},
		{OCRAuthority, &r.Document.Authority}, {OCRValidDate, &r.Document.Valid},
		{PassNo, &r.Document.PassNo}, {VisaNum, &r.Document.VisaNum},
		{EIDCode, &r.EID.Code}, {EIDSign, &r.EID.Sign},
		{Raw, &r.Raw},
	}
	for _, v := range values {
		if err := do(v.field, 0, v.value); err != nil {
			return err
		}
	}
	for i := range r.Intention.Answers {
		if err := do(Answer, i, &r.Intention.Answers[i]); err != nil {
			return err
		}
	}
	for i := range r.Attempts {
		if err := errors.Join(do(AttemptName, i, &r.Attempts[i].Name), do(AttemptIDCard, i, &r.Attempts[i].IDCard)); err != nil {
			return err
		}
	}
	return nil
}

// OpenRecord returns a copy of rec whose sealed values are opened, for a person to
// see: those of the fields in only, or all if only is empty. Before anything is
// opened, entry is written to the audit log, with the record's token hash and those of
// the fields that have a value: without the entry there is no value. Masked, hashed and
// dropped values stay as they are. The error joins one for every value that does not
// open, which stays sealed in the copy; the copy is nil if there is no entry.
func (p *Policy) OpenRecord(rec *Record, audit *Audit, entry AuditEntry, only ...Field) (*Record, error) {
	wanted := func(f Field) bool { return len(only) == 0 || slices.Contains(only, f) }
	open := *rec
	open.Intention.Answers = slices.Clone(rec.Intention.Answers)
	open.Attempts = slices.Clone(rec.Attempts)

	entry.Product, entry.TokenHash, entry.Fields = rec.Product, rec.TokenHash, nil
	_ = open.Each(func(f Field, _ int, s *Stored) error {
		if wanted(f) && s.Value != "" && !slices.Contains(entry.Fields, f) {
			entry.Fields = append(entry.Fields, f)
		}
		return nil
	})
	if err := audit.Append(entry); err != nil {
		return nil, fmt.Errorf("nothing is opened without an entry in the audit log: %w", err)
	}

	var failed []error
	_ = open.Each(func(f Field, position int, s *Stored) error {
		if !wanted(f) || !IsSealed(s.Value) {
			return nil
		}
		value, err := p.Open(Ref{Product: rec.Product, Token: rec.Token, Field: f, Position: position}, s.Value)
		if err != nil {
			failed = append(failed, err)
			return nil
		}
		s.Value = value.Reveal()
		return nil
	})
	return &open, errors.Join(failed...)
}
