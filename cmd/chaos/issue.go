//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// ways are all in which results come, each an account of its own.
var ways = []struct {
	account  string
	product  result.Product
	settings string
}{
	{"fields-aes", result.Enhanced, "encryption: {mode: fields, algorithm: AES-256-CBC, public_key_file: FOLDER/aes.txt}"},
	{"fields-sm4", result.Enhanced, "encryption: {mode: fields, algorithm: SM4-GCM, public_key_file: FOLDER/sm4.txt}"},
	{"body-aes", result.Enhanced, "encryption: {mode: body, algorithm: AES-256-CBC, public_key_file: FOLDER/aes.txt}"},
	{"body-sm4", result.Enhanced, "encryption: {mode: body, algorithm: SM4-GCM, public_key_file: FOLDER/sm4.txt}"},
	{"kms-fields", result.Enhanced, "encryption: {mode: fields, kms_key_id: kms-key, kms_endpoint: ENDPOINT}"},
	{"kms-body", result.Enhanced, "encryption: {mode: body, kms_key_id: kms-key, kms_endpoint: ENDPOINT}"},
	{"none", result.Enhanced, "encryption: {mode: none}"},
	{"eid", result.EID, "eid: {private_key_file: FOLDER/CAkey.pem}"},
}

// Every so many tokens are special; the numbers have no common divisors, so that
// all combinations come.
const (
	everyUnfinished = 13 // finish only after their event
	everyTooLarge   = 29 // are answered one part at a time
	everyRefused    = 5  // of those with an intention step say no
	everyForged     = 37 // are followed by an event that must become a dead letter
	everyAgain      = 17 // are published again, with all work to be done again
	everyTwice      = 11 // are published on both lanes, beyond the duplicate window
	everyRepeated   = 7  // are published twice within it
)

// marks are in every personal value and nowhere else.
const (
	markName    = "马克测试"
	markIDCard  = "CANARY-IDNUM-"
	markAddress = "CANARY-ADDRESS-"
	markMobile  = "CANARY-MOBILE-"
)

// issued is a token, with what must be in the sinks at the end.
type issued struct {
	faceidtest.Check
	account string
	lane    event.Lane
	// finishAfter is when the check is finished, counted from its event; 0 means
	// that it was before.
	finishAfter time.Duration
	again, twice,
	repeated bool
}

func (t *issued) hash() string { return result.TokenHash(t.Product, t.Token) }

// media are those that the API has: it leaves out what is empty.
func (t *issued) media() []faceidtest.Medium {
	var list []faceidtest.Medium
	for _, m := range t.Media {
		if m.Size > 0 {
			list = append(list, m)
		}
	}
	return list
}

// forged is an event that nothing can come of.
type forged struct {
	account string
	product result.Product
	// body is what is published as it is.
	body   string
	reason event.Reason
}

// issue makes n tokens of all kinds, and the forged events among them.
func issue(random *rand.Rand, n int) (tokens []*issued, forgeries []forged) {
	for i := range n {
		t := newToken(random, i)
		tokens = append(tokens, t)
		if i%everyForged == everyForged-1 {
			forgeries = append(forgeries, newForgery(t, len(forgeries)))
		}
	}
	return tokens, forgeries
}

func newToken(random *rand.Rand, i int) *issued {
	way := ways[i%len(ways)]
	if i%3 == 2 {
		way = ways[len(ways)-1] // a third is eid
	}
	number := 2 * random.Intn(1<<20) // even ones are enhanced
	if way.product == result.EID {
		number++
	}
	t := &issued{Check: faceidtest.NewCheck(number, 64<<10), account: way.account, lane: event.Live}
	t.Token = fmt.Sprintf("CHAOS-%08x-%06d", random.Uint32(), i)
	t.Made = time.Now().Add(-time.Duration(random.Intn(3600)) * time.Second)
	t.Person = faceidtest.Person{
		Name: fmt.Sprintf("%s%d", markName, i), IDCard: fmt.Sprintf("%s%05d", markIDCard, i),
		Address: fmt.Sprintf("%s%d", markAddress, i), Mobile: fmt.Sprintf("%s%d", markMobile, i),
	}
	if t.Intention != "" && i%everyRefused == 0 {
		t.IntentionCode = -301
	}
	for k := range t.Media {
		m := &t.Media[k]
		m.Size, m.Seed, m.Form = mediumSize(random), random.Uint64(), forms[random.Intn(len(forms))]
		if m.Form.InCOS() && strings.HasPrefix(m.Field, "IntentionVerifyData.") {
			m.Form = faceidtest.Base64 // which FaceID never puts there
		}
		switch {
		case m.Form.InCOS():
			m.Size = max(m.Size, leastMedium)
		case m.Size == 0:
			m.Form = faceidtest.Base64 // an empty string, without a data URI's head
		}
	}
	if i%4 == 3 {
		t.lane = event.Backfill
	}
	if i%everyUnfinished == everyUnfinished-1 {
		t.finishAfter = time.Duration(500+random.Intn(2500)) * time.Millisecond
	}
	t.TooLarge = t.Product == result.Enhanced && i%everyTooLarge == everyTooLarge-1
	t.again, t.twice, t.repeated = i%everyAgain == 1, i%everyTwice == 2, i%everyRepeated == 3
	return t
}

// forms are all in which media come.
var forms = []faceidtest.Form{
	faceidtest.Base64, faceidtest.EscapedSlash, faceidtest.URLSafe, faceidtest.Lines, faceidtest.DataURI,
	faceidtest.COSKey, faceidtest.COSSlashKey, faceidtest.COSHost, faceidtest.COSURL,
}

// leastMedium has room for the slices that are searched for on disk.
const leastMedium = 512

// mediumSize is mostly small, sometimes nothing and rarely up to 2 MiB.
func mediumSize(random *rand.Rand) int64 {
	switch n := random.Intn(100); {
	case n < 5:
		return 0
	case n < 60:
		return leastMedium + random.Int63n(8<<10)
	case n < 92:
		return 8<<10 + random.Int63n(56<<10)
	case n < 99:
		return 64<<10 + random.Int63n(448<<10)
	default:
		return 512<<10 + random.Int63n(1536<<10)
	}
}

// newForgery names a token that the API does not know, or none at all.
func newForgery(like *issued, n int) forged {
	f := forged{account: like.account, product: like.Product, reason: event.Malformed}
	switch n % 3 {
	case 1:
		f.body = fmt.Sprintf(`{"token":"","forged":%d}`, n)
	case 2:
		f.body = fmt.Sprintf("forged %d", n)
	default:
		f.reason, f.body = event.Rejected, fmt.Sprintf(`{"token":"FORGED-%06d"}`, n)
	}
	return f
}

// put makes a token known to the API, and its media to COS.
func (s *standIns) put(t *issued) error {
	check := t.Check
	check.Unfinished = t.finishAfter > 0
	for _, m := range t.media() {
		if !m.Form.InCOS() {
			continue
		}
		body, err := io.ReadAll(m.Reader())
		if err != nil {
			return err
		}
		s.cos.Put(faceidBucket, m.Key(), "application/octet-stream", body)
	}
	s.api.Put(check)
	return nil
}

// finish ends a check that was not finished.
func (s *standIns) finish(t *issued) { s.api.Put(t.Check) }
