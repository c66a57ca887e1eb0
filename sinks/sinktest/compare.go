package sinktest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// complete tells whether s is the whole of r, as far as the sink's kinds go.
func (g *rig) complete(h *handle, r *result.Result, s Stored) error {
	if h.isArchiver() {
		if s.Manifest == nil {
			return errors.New("there is no manifest")
		}
		if err := fulfilled(r, s.Manifest, s); err != nil {
			return fmt.Errorf("the manifest: %w", err)
		}
	}
	if h.isRecorder() {
		if err := g.recorded(r, s); err != nil {
			return err
		}
	}
	if h.isNotifier() {
		if n := len(ids(s.Messages)); n != 1 {
			return fmt.Errorf("%d messages of different ids about one token, want 1", n)
		}
	}
	return nil
}

// fulfilled tells whether what receipts say of r's assets is so.
func fulfilled(r *result.Result, receipts []result.Receipt, s Stored) error {
	if len(receipts) != len(r.Assets) {
		return fmt.Errorf("%d receipts for %d assets", len(receipts), len(r.Assets))
	}
	seen := map[string]bool{}
	for i, a := range r.Assets {
		receipt := receipts[i]
		if receipt.Field != a.Field {
			return fmt.Errorf("receipt %d is not of asset %d: receipts are in the order of assets", i, i)
		}
		if receipt.Location == "" || seen[receipt.Location] {
			return fmt.Errorf("receipt %d: the location %q is empty or another asset's", i, receipt.Location)
		}
		seen[receipt.Location] = true
		if leaked([]byte(receipt.Location)) != "" || strings.Contains(receipt.Location, r.Token) {
			return fmt.Errorf("receipt %d: the location holds a personal value or the token", i)
		}
		if err := truthful(a, receipt, s.Objects); err != nil {
			return fmt.Errorf("receipt %d: %w", i, err)
		}
	}
	return nil
}

// truthful tells whether a receipt's digests are those of the asset, and the
// object is there.
func truthful(a result.Asset, receipt result.Receipt, objects map[string][]byte) error {
	if a.Content == nil {
		return nil // its bytes may never have been here
	}
	stored, ok := objects[receipt.Location]
	if !ok {
		return fmt.Errorf("nothing is stored at %q", receipt.Location)
	}
	want, err := readAll(a.Content)
	if err != nil {
		return err
	}
	switch {
	case !bytes.Equal(stored, want):
		return fmt.Errorf("the object differs from the asset: %d bytes, want %d", len(stored), len(want))
	case receipt.Size != a.Digest.Size:
		return fmt.Errorf("the size is %d, want %d", receipt.Size, a.Digest.Size)
	case receipt.SHA256 != a.Digest.SHA256Hex():
		return errors.New("the SHA-256 is wrong")
	case receipt.CRC64 != "" && receipt.CRC64 != a.Digest.CRC64String():
		return errors.New("the CRC-64 is wrong")
	}
	return nil
}

func readAll(c result.Content) ([]byte, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// recorded tells whether the stored record is what the policy makes of r.
func (g *rig) recorded(r *result.Result, s Stored) error {
	if s.Record == nil {
		return errors.New("there is no record")
	}
	want, err := g.policy.Protect(r)
	if err != nil {
		return err
	}
	wantText, err := g.opened(want)
	if err != nil {
		return err
	}
	gotText, err := g.opened(s.Record)
	if err != nil {
		return err
	}
	if gotText != wantText {
		return fmt.Errorf("the record differs: %s", firstDifference(gotText, wantText))
	}
	return nil
}

// opened renders a record with its sealed values opened, each in its own place.
// A database that cannot store NUL may have put U+FFFD in its place.
func (g *rig) opened(rec *privacy.Record) (string, error) {
	var c privacy.Record
	if err := json.Unmarshal([]byte(mustJSON(rec)), &c); err != nil {
		return "", err
	}
	var problem error
	personal(&c, func(f privacy.Field, position int, s *privacy.Stored) {
		if rule := g.policy.Rule(f); s.Value == "" || rule != privacy.Seal && rule != privacy.SealHash {
			return // a plain value may look sealed
		}
		ref := privacy.Ref{Product: c.Product, Token: c.Token, Field: f, Position: position}
		v, err := g.policy.Open(ref, s.Value)
		if err != nil {
			problem = errors.Join(problem, fmt.Errorf("a stored value of %s at %d: %w", f, position, err))
			return
		}
		// The policy's own index tells values apart without revealing them.
		s.Value = "opened:" + g.policy.Index(f, v)
	})
	return strings.ReplaceAll(mustJSON(c), `\u0000`, "\uFFFD"), problem
}

// personal visits every personal value of a record.
func personal(rec *privacy.Record, visit func(privacy.Field, int, *privacy.Stored)) {
	p, d := &rec.Person, &rec.Document
	for f, s := range map[privacy.Field]*privacy.Stored{
		privacy.Name: &p.Name, privacy.IDCard: &p.IDCard, privacy.Mobile: &p.Mobile,
		privacy.Location: &p.Location, privacy.Extra: &p.Extra,
		privacy.OCRName: &d.Name, privacy.OCRIDCard: &d.IDCard, privacy.OCRGender: &d.Gender,
		privacy.OCRNation: &d.Nation, privacy.OCRBirth: &d.Birth, privacy.OCRAddress: &d.Address,
		privacy.OCRAuthority: &d.Authority, privacy.OCRValidDate: &d.Valid,
		privacy.PassNo: &d.PassNo, privacy.VisaNum: &d.VisaNum,
		privacy.EIDCode: &rec.EID.Code, privacy.EIDSign: &rec.EID.Sign, privacy.Raw: &rec.Raw,
	} {
		visit(f, 0, s)
	}
	for i := range rec.Intention.Answers {
		visit(privacy.Answer, i, &rec.Intention.Answers[i])
	}
	for i := range rec.Attempts {
		visit(privacy.AttemptName, i, &rec.Attempts[i].Name)
		visit(privacy.AttemptIDCard, i, &rec.Attempts[i].IDCard)
	}
}

// seal matches a sealed value, whose nonce is new each time.
var seal = regexp.MustCompile(`seal:v1:[0-9a-f]{8}:[A-Za-z0-9_-]+`)

func unsealed[T ~string | ~[]byte](text T) []byte {
	return seal.ReplaceAll([]byte(text), []byte("seal:v1:…"))
}

// render writes down a state so that equal states have equal texts.
func (g *rig) render(t testing.TB, s Stored) string {
	t.Helper()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Objects)) {
		fmt.Fprintf(&b, "object %q %x\n", name, sha256.Sum256(unsealed(s.Objects[name])))
	}
	for _, entry := range s.Manifest {
		fmt.Fprintf(&b, "manifest %s\n", mustJSON(entry))
	}
	if s.Record != nil {
		text, err := g.opened(s.Record)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "record %s\n", text)
	}
	bodies := map[string][]byte{}
	for _, m := range s.Messages {
		body := unsealed(m.Body)
		if first, repeated := bodies[m.ID]; repeated && !bytes.Equal(first, body) {
			t.Fatalf("two messages have one id and different bodies: %s", firstDifference(string(body), string(first)))
		}
		bodies[m.ID] = body
	}
	for _, id := range slices.Sorted(maps.Keys(bodies)) {
		fmt.Fprintf(&b, "message %q %s\n", id, bodies[id])
	}
	fmt.Fprintf(&b, "state %s\n", unsealed(s.State))
	return b.String()
}

func ids(messages []Message) map[string]bool {
	set := map[string]bool{}
	for _, m := range messages {
		set[m.ID] = true
	}
	return set
}

// same ends the check if two states differ.
func same(t testing.TB, when, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s, the state differs: %s", when, firstDifference(got, want))
	}
}

// firstDifference shows the first line in which two texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := "(nothing)", "(nothing)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("got %.300q, want %.300q", a, b)
		}
	}
	return "no difference"
}
