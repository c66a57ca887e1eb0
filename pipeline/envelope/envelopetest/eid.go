package envelopetest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm4"
)

// Form is how the person of an eid check is sent. The vendor documents none of it
// (FACTS §2.4); the zero value is what is most likely.
type Form struct {
	// C1C2C3 puts C2 before C3; ASN1 is SM2Cipher of GM/T 0009 instead.
	C1C2C3, ASN1 bool
	// Bare leaves the byte 0x04 out.
	Bare bool
	// Hex writes DesKey in hex; HexKey makes what is in it hex digits.
	Hex, HexKey bool
	// Fill is put behind the JSON to make whole blocks of it: by default zeros. It
	// is called with the number of bytes that are missing, 0 to 15.
	Fill func(missing int) []byte
}

// SealEID encrypts a person, a JSON object, for a merchant: DesKey and UserInfo.
func (m *Merchant) SealEID(person []byte, form Form) (desKey, userInfo string, err error) {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // does not fail
	plain := key
	if form.HexKey {
		plain = []byte(hex.EncodeToString(key))
	}
	sealed, err := m.encrypt(plain, form)
	if err != nil {
		return "", "", fmt.Errorf("encrypting DesKey: %w", err)
	}
	desKey = base64.StdEncoding.EncodeToString(sealed)
	if form.Hex {
		desKey = hex.EncodeToString(sealed)
	}
	userInfo, err = sealUserInfo(key, person, form.Fill)
	return desKey, userInfo, err
}

func (m *Merchant) encrypt(plain []byte, form Form) ([]byte, error) {
	public := &m.key.PublicKey
	if form.ASN1 {
		return sm2.EncryptASN1(rand.Reader, public, plain)
	}
	order := sm2.C1C3C2
	if form.C1C2C3 {
		order = sm2.C1C2C3
	}
	sealed, err := sm2.Encrypt(rand.Reader, public, plain, sm2.NewPlainEncrypterOpts(sm2.MarshalUncompressed, order))
	if err == nil && form.Bare {
		sealed = sealed[1:]
	}
	return sealed, err
}

func sealUserInfo(key, person []byte, fill func(int) []byte) (string, error) {
	block, err := sm4.NewCipher(key)
	if err != nil {
		return "", fmt.Errorf("making the cipher: %w", err)
	}
	missing := (sm4.BlockSize - len(person)%sm4.BlockSize) % sm4.BlockSize
	if fill == nil {
		fill = func(n int) []byte { return make([]byte, n) }
	}
	text := append(append([]byte{}, person...), fill(missing)...)
	if len(text)%sm4.BlockSize != 0 {
		return "", fmt.Errorf("%d bytes are not whole blocks", len(text))
	}
	for i := 0; i < len(text); i += sm4.BlockSize {
		block.Encrypt(text[i:i+sm4.BlockSize], text[i:i+sm4.BlockSize])
	}
	return base64.StdEncoding.EncodeToString(text), nil
}
