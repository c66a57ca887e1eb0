package privacy

// Field names one kind of personal value of a result. It is the key under
// privacy.fields in the configuration, and it is part of what a sealed value is
// bound to, so the names never change.
type Field string

// The fields of a result that are protected. The set is closed: whatever
// package result adds as Sensitive needs a Field here.
const (
	// Name is Person.Name, the name the check was made against.
	Name Field = "name"
	// IDCard is Person.IDCard, the number the check was made against.
	IDCard Field = "id_card"
	// Mobile is Person.Mobile, a phone number.
	Mobile Field = "mobile"
	// Location is Person.Location, where the user's device said it was.
	Location Field = "location"
	// Extra is Person.Extra, the caller's own text, often an order number.
	Extra Field = "extra"

	// OCRName is Document.Name.
	OCRName Field = "ocr_name"
	// OCRIDCard is Document.IDCard.
	OCRIDCard Field = "ocr_id_card"
	// OCRGender is Document.Gender.
	OCRGender Field = "ocr_gender"
	// OCRNation is Document.Nation.
	OCRNation Field = "ocr_nation"
	// OCRBirth is Document.Birth.
	OCRBirth Field = "ocr_birth"
	// OCRAddress is Document.Address.
	OCRAddress Field = "ocr_address"
	// OCRAuthority is Document.Authority, which names a county or district.
	OCRAuthority Field = "ocr_authority"
	// OCRValidDate is Document.Valid, the document's first and last day.
	OCRValidDate Field = "ocr_valid_date"
	// PassNo is Document.PassNo, the number of a permit.
	PassNo Field = "pass_no"
	// VisaNum is Document.VisaNum, the issue number of a permit.
	VisaNum Field = "visa_num"

	// EIDCode is EIDInfo.Code, this merchant's identifier of the person.
	EIDCode Field = "eid_code"
	// EIDSign is EIDInfo.Sign, the eID centre's signature over it.
	EIDSign Field = "eid_sign"

	// Answer is one of Intention.Answers: recognised speech.
	Answer Field = "answer"

	// AttemptName is Attempt.Name.
	AttemptName Field = "attempt_name"
	// AttemptIDCard is Attempt.IDCard.
	AttemptIDCard Field = "attempt_id_card"

	// Raw is Result.Raw, the whole response without media. It repeats every
	// other field, so it can only be sealed, dropped or, at the owner's risk,
	// plain.
	Raw Field = "raw"
)

// kind says how the values of a field are masked and normalised.
type kind int

const (
	freeText kind = iota
	personName
	idNumber
	phone
	address
	document // a JSON text; neither masked nor hashed
)

// trait is what this package knows of a field.
type trait struct {
	field Field
	kind  kind
	// group is the domain of the blind index: fields of one group share it, so
	// that the name a check was made against finds the name on the document.
	group string
	rule  Rule
}

// traits is the one table of fields, in the order they are shown to people.
var traits = []trait{
	{Name, personName, "name", SealHash},
	{IDCard, idNumber, "id_card", SealHash},
	{Mobile, phone, "mobile", SealHash},
	{Location, freeText, "location", Seal},
	{Extra, freeText, "extra", Seal},
	{OCRName, personName, "name", SealHash},
	{OCRIDCard, idNumber, "id_card", SealHash},
	{OCRGender, freeText, "ocr_gender", Seal},
	{OCRNation, freeText, "ocr_nation", Seal},
	{OCRBirth, freeText, "ocr_birth", Seal},
	{OCRAddress, address, "ocr_address", SealHash},
	{OCRAuthority, freeText, "ocr_authority", Seal},
	{OCRValidDate, freeText, "ocr_valid_date", Seal},
	{PassNo, idNumber, "pass_no", SealHash},
	{VisaNum, idNumber, "visa_num", SealHash},
	{EIDCode, freeText, "eid_code", SealHash},
	{EIDSign, freeText, "eid_sign", Seal},
	{Answer, freeText, "answer", Seal},
	{AttemptName, personName, "name", SealHash},
	{AttemptIDCard, idNumber, "id_card", SealHash},
	{Raw, document, "raw", Seal},
}

var traitOf = func() map[Field]trait {
	m := make(map[Field]trait, len(traits))
	for _, t := range traits {
		m[t.field] = t
	}
	return m
}()

// Fields lists every field, in the order they are shown to people.
func Fields() []Field {
	fields := make([]Field, len(traits))
	for i, t := range traits {
		fields[i] = t.field
	}
	return fields
}

// Valid reports whether f is one of Fields.
func (f Field) Valid() bool {
	_, ok := traitOf[f]
	return ok
}
