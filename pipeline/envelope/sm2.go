package envelope

import (
	"crypto/rand"
	"fmt"
	"math/big"

	"github.com/tjfoc/gmsm/sm2"
)

// github.com/tjfoc/gmsm panics on short ciphertexts, takes points that are not on
// the curve and returns the wrong plaintext beside its error (FACTS §7.1). All of
// its SM2 is called from this file, which guards against that.

// Sizes of an SM2 ciphertext, in bytes: a coordinate of the point C1, and the
// hash C3.
const (
	coordinateSize = 32
	pointSize      = 2 * coordinateSize
	hashSize       = 32
)

// uncompressed begins a point of which both coordinates follow.
const uncompressed = 0x04

// onCurve reports whether (x, y) is a point of the SM2 curve other than the point
// at infinity. The curve's order is prime, so that is all that there is to check.
func onCurve(x, y *big.Int) bool {
	curve := sm2.P256Sm2().Params()
	if x.Sign() < 0 || y.Sign() < 0 || x.Cmp(curve.P) >= 0 || y.Cmp(curve.P) >= 0 {
		return false
	}
	// y² = x³ - 3x + b
	right := new(big.Int).Mul(x, x)
	right.Sub(right, big.NewInt(3)).Mul(right, x).Add(right, curve.B)
	left := new(big.Int).Mul(y, y)
	return left.Sub(left, right).Mod(left, curve.P).Sign() == 0
}

// point returns the point of 64 bytes, if it is on the curve.
func point(raw []byte) (x, y *big.Int, ok bool) {
	x = new(big.Int).SetBytes(raw[:coordinateSize])
	y = new(big.Int).SetBytes(raw[coordinateSize:pointSize])
	return x, y, onCurve(x, y)
}

// newSM2PublicKey takes a point in its uncompressed form, with or without the
// byte 0x04.
func newSM2PublicKey(raw []byte) (*sm2.PublicKey, error) {
	if len(raw) == 1+pointSize && raw[0] == uncompressed {
		raw = raw[1:]
	}
	if len(raw) != pointSize {
		return nil, fmt.Errorf("the point of an SM2 key must be uncompressed: %d bytes, not %d", 1+pointSize, len(raw))
	}
	x, y, ok := point(raw)
	if !ok {
		return nil, fmt.Errorf("the point of the SM2 key is not on the curve")
	}
	return &sm2.PublicKey{Curve: sm2.P256Sm2(), X: x, Y: y}, nil
}

// newSM2PrivateKey takes the private number, which is between 1 and n-2
// (GB/T 32918.1 §6.1).
func newSM2PrivateKey(raw []byte) (*sm2.PrivateKey, error) {
	curve := sm2.P256Sm2()
	d := new(big.Int).SetBytes(raw)
	if d.Sign() == 0 || d.Cmp(new(big.Int).Sub(curve.Params().N, big.NewInt(1))) >= 0 {
		return nil, fmt.Errorf("the private number of the SM2 key is out of range")
	}
	key := &sm2.PrivateKey{D: d}
	key.Curve = curve
	//nolint:staticcheck // deprecated for the curves of crypto/ecdh, which SM2 is not among
	key.X, key.Y = curve.ScalarBaseMult(d.FillBytes(make([]byte, coordinateSize)))
	return key, nil
}

// sm2Encrypt returns 0x04, C1, C3 and C2 (FACTS §1.4).
func sm2Encrypt(key *sm2.PublicKey, plaintext []byte) ([]byte, error) {
	ciphertext, err := sm2.Encrypt(key, plaintext, rand.Reader, sm2.C1C3C2)
	if err != nil {
		return nil, fmt.Errorf("encrypting with SM2: %w", err)
	}
	return ciphertext, nil
}

// sm2Decrypt opens C1, C3 and C2. The caller has checked that C1 is on the curve
// and that C2 is not empty. It reports whether the hash C3 fits.
func sm2Decrypt(key *sm2.PrivateKey, ciphertext []byte) ([]byte, bool) {
	prefixed := append([]byte{uncompressed}, ciphertext...)
	plaintext, err := sm2.Decrypt(key, prefixed, sm2.C1C3C2)
	if err != nil {
		clear(plaintext)
		return nil, false
	}
	return plaintext, true
}
