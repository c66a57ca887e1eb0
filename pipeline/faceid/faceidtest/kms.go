package faceidtest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// maxKMSText is how much text KMS encrypts at once, in bytes.
const maxKMSText = 4 << 10

// kmsText is what a CiphertextBlob stands for.
type kmsText struct {
	keyID string
	plain []byte
}

// AddKMSKey makes a customer master key known to KMS.
func (s *Server) AddKMSKey(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kmsKeys[id] = true
}

// RemoveKMSKey makes KMS refuse a key, as when it is disabled or to be deleted.
func (s *Server) RemoveKMSKey(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kmsKeys, id)
}

// serveKMS answers the actions of KMS, and tells whether the action is one. A
// call of any of them counts as one of its key's id.
func (s *Server) serveKMS(w http.ResponseWriter, action string, body []byte, requestID string) bool {
	var p struct{ KeyId, KeySpec, Plaintext, CiphertextBlob string } //nolint:revive // the API's spelling.
	actions := map[string]func() (kmsAnswer, string){
		"GenerateDataKey": func() (kmsAnswer, string) { return s.generateDataKey(p.KeyId, p.KeySpec) },
		"Encrypt":         func() (kmsAnswer, string) { return s.encrypt(p.KeyId, p.Plaintext) },
		"Decrypt":         func() (kmsAnswer, string) { return s.decrypt(p.CiphertextBlob) },
	}
	act, known := actions[action]
	if !known {
		return false
	}
	if json.Unmarshal(body, &p) != nil {
		refuse(w, requestID, "InvalidParameter")
		return true
	}
	answer, code := act()
	if code != "" {
		refuse(w, requestID, code)
		return true
	}
	answer.RequestId = requestID
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err) // strings always encode
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"Response":%s}`, text)
	return true
}

// kmsAnswer is the Response object of KMS.
type kmsAnswer struct {
	KeyId          string //nolint:revive // the API's spelling.
	Plaintext      string `json:",omitempty"`
	CiphertextBlob string `json:",omitempty"`
	RequestId      string //nolint:revive // the API's spelling.
}

// generateDataKey has a key of its own for each call.
func (s *Server) generateDataKey(keyID, spec string) (kmsAnswer, string) {
	if spec != "AES_256" {
		return kmsAnswer{}, "InvalidParameter"
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // does not fail
	blob, code := s.keep(keyID, key)
	return kmsAnswer{KeyId: keyID, Plaintext: base64.StdEncoding.EncodeToString(key), CiphertextBlob: blob}, code
}

func (s *Server) encrypt(keyID, plaintext string) (kmsAnswer, string) {
	plain, err := base64.StdEncoding.DecodeString(plaintext)
	if err != nil || len(plain) == 0 || len(plain) > maxKMSText {
		return kmsAnswer{}, "InvalidParameterValue.InvalidPlaintext"
	}
	blob, code := s.keep(keyID, plain)
	return kmsAnswer{KeyId: keyID, CiphertextBlob: blob}, code
}

func (s *Server) decrypt(blob string) (kmsAnswer, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, known := s.kmsTexts[blob]
	if !known {
		return kmsAnswer{}, "InvalidParameterValue.InvalidCiphertext"
	}
	s.calls[text.keyID]++
	if !s.kmsKeys[text.keyID] {
		return kmsAnswer{}, "ResourceUnavailable.CmkDisabled"
	}
	return kmsAnswer{KeyId: text.keyID, Plaintext: base64.StdEncoding.EncodeToString(text.plain)}, ""
}

// keep remembers a text and returns the blob that stands for it.
func (s *Server) keep(keyID string, plain []byte) (blob, code string) {
	blob = base64.StdEncoding.EncodeToString([]byte("kms:" + rand.Text()))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[keyID]++
	if !s.kmsKeys[keyID] {
		return "", "InvalidParameterValue.InvalidKeyId"
	}
	s.kmsTexts[blob] = kmsText{keyID, slices.Clone(plain)}
	return blob, ""
}
