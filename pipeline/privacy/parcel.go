package privacy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// A parcel is a whole result with its inline media, to be kept where nobody but
// this program reads it:
//
//	"FIPARCL" 01 │ size of the sealed head (8)
//	the head: the result as JSON, sealed
//	each inline medium, sealed, in the order of Result.Assets
//
// Each part is sealed as media are, for the parcel's token and the part's number:
// a part of another token or another place does not open. The head, which is
// authentic, has the digests of the media, so that nothing outside of it has to
// be believed, and a medium of an older parcel of the token is noticed.

const (
	parcelMagic  = "FIPARCL\x01"
	parcelHeader = len(parcelMagic) + 8
	// maxParcelHead bounds the JSON of a result, in bytes. An answer without its
	// media has at most 1 MiB.
	maxParcelHead = 16 << 20
	// parcelField begins the field that a part is sealed for. No asset is called
	// so: extract lets no control character into the name of a field.
	parcelField = "faceid-ingest parcel v1\x00"
)

// ErrDamagedParcel means that a parcel is not what SealParcel made for this token:
// it was altered, cut off or moved.
var ErrDamagedParcel = errors.New("the parcel is damaged or belongs elsewhere")

// parcelHead is the first part of a parcel.
type parcelHead struct {
	// Result is the result without personal values, contents and receipts.
	Result result.Result `json:"result"`
	// Personal are the values that Result does not show.
	Personal []parcelValue `json:"personal"`
	// Inline are the indexes of the assets whose media follow, in order.
	Inline []int `json:"inline"`
}

// parcelValue is a personal value; Value need not be UTF-8.
type parcelValue struct {
	Field    Field  `json:"field"`
	Position int    `json:"position,omitempty"`
	Value    []byte `json:"value"`
}

// parcelRef is what a part is sealed for; the head is part 0.
func parcelRef(p result.Product, tokenHash string, part int) MediaRef {
	return MediaRef{Product: p, TokenHash: tokenHash, Field: parcelField + strconv.Itoa(part)}
}

// SealedParcel is a parcel that is sealed as it is read.
type SealedParcel struct {
	// parts begin with the head.
	parts []*SealedMedia
}

// SealParcel returns r with its inline media, sealed under the keyring's active key
// and the configured cipher, whatever the rules of fields are. Receipts (Stored) are
// left out, and text that is not UTF-8 is mended, except in personal values. r must
// stay as it is while the parcel is read.
//
// It fails as SealMedia does, and if the result is larger than any answer of the API.
func (p *Policy) SealParcel(r *result.Result) (*SealedParcel, error) {
	if p.keys == nil {
		return nil, errors.New("seal a parcel: the privacy policy has no keyring: set privacy.keyring_file")
	}
	set, err := p.keys.current()
	if err != nil {
		return nil, fmt.Errorf("seal a parcel: %w", err)
	}
	plain, media, err := packParcel(r)
	if err != nil {
		return nil, fmt.Errorf("seal a parcel: %w", err)
	}
	head := result.Asset{
		Content: plain, Digest: result.Digest{Size: int64(len(plain)), SHA256: sha256.Sum256(plain)},
	}
	parcel := &SealedParcel{}
	for part, a := range append([]result.Asset{head}, media...) {
		sealed, err := p.sealMedia(set.active, parcelRef(r.Product, r.TokenHash(), part), a.Digest, a.Content)
		if err != nil {
			return nil, fmt.Errorf("seal a parcel: %w", err)
		}
		parcel.parts = append(parcel.parts, sealed)
	}
	return parcel, nil
}

// packParcel returns the head of r's parcel and the assets that follow it.
func packParcel(r *result.Result) (plainText, []result.Asset, error) {
	head := parcelHead{Result: *r}
	head.Result.Assets = slices.Clone(r.Assets)
	var media []result.Asset
	for i := range head.Result.Assets {
		a := &head.Result.Assets[i]
		if a.Content != nil {
			head.Inline = append(head.Inline, i)
			media = append(media, *a)
		}
		a.Content, a.Stored = nil, nil
	}
	eachPersonal(r, func(f Field, position int, v *result.Sensitive) {
		if !v.IsEmpty() {
			head.Personal = append(head.Personal, parcelValue{f, position, []byte(v.Reveal())})
		}
	})
	plain, err := json.Marshal(head)
	switch {
	case err != nil:
		// The error of encoding/json may show a value.
		return nil, nil, errors.New("the result cannot be written as JSON")
	case len(plain) > maxParcelHead:
		return nil, nil, fmt.Errorf("the result has %d bytes without its media, and may have %d", len(plain), maxParcelHead)
	}
	return plain, media, nil
}

// eachPersonal calls do for every personal value of r, as Record.Each does.
func eachPersonal(r *result.Result, do func(f Field, position int, v *result.Sensitive)) {
	for _, v := range []struct {
		field Field
		value *result.Sensitive
	}{
		{Name, &r.Person.Name}, {IDCard, &r.Person.IDCard}, {Mobile, &r.Person.Mobile},
		{Location, &r.Person.Location}, {Extra, &r.Person.Extra},
		{OCRName, &r.Document.Name}, {OCRIDCard, &r.Document.IDCard}, {OCRGender, &r.Document.Gender},
		{OCRNation, &r.Document.Nation}, {OCRBirth, &r.Document.Birth}, {OCRAddress, &r.Document.Address},
		{OCRAuthority, &r.Document.Authority}, {OCRValidDate, &r.Document.Valid},
		{PassNo, &r.Document.PassNo}, {VisaNum, &r.Document.VisaNum},
		{EIDCode, &r.EID.Code}, {EIDSign, &r.EID.Sign},
		{Raw, &r.Raw},
	} {
		do(v.field, 0, v.value)
	}
	for i := range r.Intention.Answers {
		do(Answer, i, &r.Intention.Answers[i])
	}
	for i := range r.Attempts {
		do(AttemptName, i, &r.Attempts[i].Name)
		do(AttemptIDCard, i, &r.Attempts[i].IDCard)
	}
}

// Seal names the key and the cipher that the whole parcel is sealed with.
func (s *SealedParcel) Seal() (keyID string, c Cipher) {
	h := s.parts[0].Header()
	return h.KeyID, h.Cipher
}

// Size is how many bytes the sealed form has.
func (s *SealedParcel) Size() int64 {
	size := int64(parcelHeader)
	for _, part := range s.parts {
		size += part.Size()
	}
	return size
}

// Open returns a reader of the sealed form, which belongs to one goroutine and has
// at most one medium open. Read fails with ErrWrongContent where a medium is not
// what its digest describes, or as the medium's own reader does.
func (s *SealedParcel) Open() io.ReadCloser {
	header := binary.BigEndian.AppendUint64([]byte(parcelMagic), uint64(s.parts[0].Size()))
	return &parcelReader{now: io.NopCloser(bytes.NewReader(header)), rest: s.parts}
}

// parcelReader reads one part after the other.
type parcelReader struct {
	// now is the part that is being read; nil between two of them.
	now  io.ReadCloser
	rest []*SealedMedia
}

func (r *parcelReader) Read(b []byte) (int, error) {
	for {
		if r.now == nil {
			if len(r.rest) == 0 {
				return 0, io.EOF
			}
			next, err := r.rest[0].Open()
			if err != nil {
				return 0, err
			}
			r.now, r.rest = next, r.rest[1:]
		}
		n, err := r.now.Read(b)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if err := r.Close(); err != nil || n > 0 {
			return n, err
		}
	}
}

func (r *parcelReader) Close() error {
	if r.now == nil {
		return nil
	}
	now := r.now
	r.now = nil
	return now.Close()
}

// plainText is content in memory.
type plainText []byte

func (b plainText) Open() (io.ReadSeekCloser, error) {
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(b), io.NopCloser(nil)}, nil
}

// Keeper reads a medium to its end and keeps it: it returns the content of the
// asset, and what its bytes were.
type Keeper func(medium io.Reader) (result.Content, result.Digest, error)

// OpenParcel returns the result that was sealed for a token. It reads sealed to its
// end, and gives media to keep one after the other. What it returns is what went
// into SealParcel, byte for byte; on an error, what keep has got so far is worth
// nothing.
//
// Errors: ErrDamagedParcel; *UnknownKeyError; the keyring cannot be read; or what
// sealed and keep say.
func (p *Policy) OpenParcel(product result.Product, tokenHash string, sealed io.Reader, keep Keeper) (*result.Result, error) {
	r, err := p.openParcel(product, tokenHash, sealed, keep)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, ErrNotAuthentic), errors.Is(err, ErrNotSealed):
		return nil, fmt.Errorf("open a parcel: %w: %w", ErrDamagedParcel, err)
	}
	return nil, fmt.Errorf("open a parcel: %w", err)
}

func (p *Policy) openParcel(product result.Product, tokenHash string, sealed io.Reader, keep Keeper) (*result.Result, error) {
	head, err := p.openParcelHead(product, tokenHash, sealed)
	if err != nil {
		return nil, err
	}
	r := &head.Result
	if r.Product != product || r.TokenHash() != tokenHash {
		return nil, ErrDamagedParcel
	}
	for part, i := range head.Inline {
		if i < 0 || i >= len(r.Assets) || r.Assets[i].Content != nil || r.Assets[i].Digest.Size < 0 || r.Assets[i].Digest.Size > maxMediaSize {
			return nil, ErrDamagedParcel
		}
		a := &r.Assets[i]
		plain, err := p.OpenMedia(parcelRef(product, tokenHash, part+1), io.LimitReader(sealed, SealedMediaSize(a.Digest.Size)))
		if err != nil {
			return nil, err
		}
		content, digest, err := keep(plain)
		if err != nil {
			return nil, err
		}
		if digest != a.Digest {
			return nil, ErrDamagedParcel
		}
		a.Content = content
	}
	return r, atEnd(sealed, ErrDamagedParcel)
}

// openParcelHead reads the head and not a byte more.
func (p *Policy) openParcelHead(product result.Product, tokenHash string, sealed io.Reader) (*parcelHead, error) {
	b := make([]byte, parcelHeader)
	_, err := io.ReadFull(sealed, b)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, ErrDamagedParcel
	case err != nil:
		return nil, err
	}
	text, ours := bytes.CutPrefix(b, []byte(parcelMagic))
	if !ours {
		return nil, ErrDamagedParcel
	}
	size := binary.BigEndian.Uint64(text)
	if size > uint64(SealedMediaSize(maxParcelHead)) {
		return nil, ErrDamagedParcel
	}
	bounded := &io.LimitedReader{R: sealed, N: int64(size)}
	plain, err := p.OpenMedia(parcelRef(product, tokenHash, 0), bounded)
	if err != nil {
		return nil, err
	}
	if text, err = io.ReadAll(plain); err != nil {
		return nil, err
	}
	if bounded.N > 0 {
		// The size is in clear: where nothing follows the head, a larger one would do.
		return nil, ErrDamagedParcel
	}
	return unpackParcel(text)
}

// unpackParcel returns the head that packParcel made, with the personal values in
// their places.
func unpackParcel(plain []byte) (*parcelHead, error) {
	head := &parcelHead{}
	if json.Unmarshal(plain, head) != nil {
		return nil, ErrDamagedParcel
	}
	type place struct {
		field    Field
		position int
	}
	values := make(map[place][]byte, len(head.Personal))
	for _, v := range head.Personal {
		values[place{v.Field, v.Position}] = v.Value
	}
	head.Personal = nil
	eachPersonal(&head.Result, func(f Field, position int, v *result.Sensitive) {
		*v = result.NewSensitive(string(values[place{f, position}]))
	})
	return head, nil
}
