package faceidtest

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// seal opens the key that a request carries, if it does. It returns the API's
// error code, or "".
func (s *Server) seal(p *parameters) string {
	if p.Encryption == nil {
		if p.IsEncryptResponse {
			return "MissingParameter"
		}
		return ""
	}
	s.mu.Lock()
	keys := s.keys[p.Encryption.Algorithm]
	dataKey := s.kmsTexts[p.Encryption.CiphertextBlob].plain
	s.mu.Unlock()
	var err error
	switch {
	case dataKey != nil:
		var iv []byte
		if iv, err = base64.StdEncoding.DecodeString(p.Encryption.Iv); err == nil {
			p.sealer, err = envelopetest.NewSealer(p.Encryption.Algorithm, dataKey, iv)
		}
	case keys != nil:
		p.sealer, err = keys.Open(*p.Encryption)
	default:
		return "FailedOperation.DecryptSystemError"
	}
	if err != nil {
		return "FailedOperation.DecryptSystemError"
	}
	return ""
}

// sealPerson encrypts a person for the merchant; both are empty without one.
func (s *Server) sealPerson(person Person) (desKey, userInfo string) {
	s.mu.Lock()
	merchant, form := s.merchant, s.eidForm
	s.mu.Unlock()
	if merchant == nil {
		return "", ""
	}
	plain, err := json.Marshal(map[string]string{"name": person.Name, "idtype": "01", "idnum": person.IDCard})
	if err == nil {
		desKey, userInfo, err = merchant.SealEID(plain, form)
	}
	if err != nil {
		panic(err) // of a key and a form that a test chose
	}
	return desKey, userInfo
}

// sealed returns a value as it is sent: encrypted, if that was asked for.
func (o *object) sealed(field, value string) string {
	if o.p.sealer == nil || o.p.IsEncryptResponse || value == "" {
		return value
	}
	ciphertext, tag := o.p.sealer.Text(value)
	o.list = append(o.list, "Response."+field)
	if tag != "" {
		o.tags = append(o.tags, tag)
	}
	return ciphertext
}

// encryption is the object of that name in an answer that is not encrypted as a
// whole.
func (o *object) encryption() envelope.Encryption {
	if o.p.sealer == nil || o.p.IsEncryptResponse {
		return envelope.Encryption{EncryptList: []string{}}
	}
	return envelope.Encryption{
		EncryptList: o.list, TagList: o.tags, Iv: o.p.Encryption.Iv,
		Algorithm: o.p.Encryption.Algorithm, CiphertextBlob: o.p.Encryption.CiphertextBlob,
	}
}

// writeSealed streams an answer that is encrypted as a whole.
func writeSealed(w *bufio.Writer, c Check, p parameters, requestID string) {
	plain, writer := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		inner := bufio.NewWriterSize(writer, 64<<10)
		writeAnswer(inner, c, p, requestID)
		_ = writer.CloseWithError(inner.Flush())
	}()
	defer func() {
		// Also where a fault ends the connection with a panic.
		_ = plain.Close()
		<-done
	}()
	_, _ = w.WriteString(`{"Response":{"EncryptedBody":"`)
	encoder := base64.NewEncoder(base64.StdEncoding, w)
	encryption, err := p.sealer.Body(encoder, plain)
	if err != nil {
		return // the client has gone
	}
	_ = encoder.Close()
	object, err := json.Marshal(encryption)
	if err != nil {
		panic(err) // only values of this package get here
	}
	_, _ = fmt.Fprintf(w, `","Encryption":%s,"RequestId":%q}}`, object, requestID)
}
