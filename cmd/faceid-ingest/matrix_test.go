package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// ways are all in which a result may come, each an account of its own: the name,
// the product, and the account's encryption or eid settings.
var ways = []struct {
	name     string
	product  result.Product
	settings string
}{
	{"fields-aes", result.Enhanced, "encryption: {mode: fields, algorithm: AES-256-CBC, public_key_file: FOLDER/aes.txt}"},
	{"fields-sm4", result.Enhanced, "encryption: {mode: fields, algorithm: SM4-GCM, public_key_file: FOLDER/sm4.txt}"},
	{"body-aes", result.Enhanced, "encryption: {mode: body, algorithm: AES-256-CBC, public_key_file: FOLDER/aes.txt}"},
	{"body-sm4", result.Enhanced, "encryption: {mode: body, algorithm: SM4-GCM, public_key_file: FOLDER/sm4.txt}"},
	{"kms-fields", result.Enhanced, "encryption: {mode: fields, kms_key_id: kms-key, kms_endpoint: ENDPOINT}"},
	{"kms-body", result.Enhanced, "encryption: {mode: body, kms_key_id: kms-key, kms_endpoint: ENDPOINT, data_key_life: 0s}"},
	{"none", result.Enhanced, "encryption: {mode: none}"},
	{"eid", result.EID, "eid: {private_key_file: FOLDER/CAkey.pem}"},
}

// TestEveryWay is the matrix of all ways in which results come, all places of
// media and all kinds of outcome, through the daemon's own parts: what is in the
// sinks is what the API chose.
func TestEveryWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.equip()
	var accounts strings.Builder
	settings := strings.NewReplacer("FOLDER", s.folder, "ENDPOINT", s.api.URL())
	for _, way := range ways {
		fmt.Fprintf(&accounts, "  - {name: %s, secret_id: AKID-test, secret_key: right-key, endpoint: %q, rule_id: \"1\", storage: {bucket: faceid-1250000000, region: ap-guangzhou}, %s}\n",
			way.name, s.api.URL(), settings.Replace(way.settings))
	}
	text := settings.Replace("data_dir: FOLDER/data\naccounts:\n" + accounts.String() + "sinks:\n  - {name: media, type: dir, path: FOLDER/media}\n  - {name: records, type: sqlite, path: FOLDER/faceid.db}\nhttp: {admin: \"\"}\n")
	cfg, err := config.Parse("matrix.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	checks := map[string][]faceidtest.Check{}
	total := 0
	publisher := event.NewPublisher(d.conn.JS)
	for _, way := range ways {
		for i, c := range variants(way.name, way.product) {
			s.api.Put(c)
			lane := event.Lanes()[i%2]
			if _, err := publisher.Publish(t.Context(), lane, way.name, c.Product, event.Event{Token: c.Token, IssuedAt: c.Made}, nil); err != nil {
				t.Fatal(err)
			}
			checks[way.name] = append(checks[way.name], c)
			total++
		}
	}
	d.until(t, total)
	policy, _, err := preparePolicy(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	archive, records := d.demoSinks()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			for _, c := range checks[way.name] {
				if err := verifyCheck(t.Context(), archive, records, c, &demoSum{forms: map[string]int{}}); err != nil {
					t.Errorf("%s: %v", c.Token, err)
				}
				sameValues(t, policy, records, c)
			}
		})
	}
}

// equip gives the API its keys and the site those that an owner has.
func (s *site) equip() {
	s.t.Helper()
	for algorithm, name := range map[envelope.Algorithm]string{envelope.AES256CBC: "aes.txt", envelope.SM4GCM: "sm4.txt"} {
		keys, err := envelopetest.GenerateKeys(algorithm)
		if err != nil {
			s.t.Fatal(err)
		}
		s.api.UseKeys(algorithm, keys)
		s.write(name, keys.Console())
	}
	merchant, err := envelopetest.GenerateMerchant()
	if err != nil {
		s.t.Fatal(err)
	}
	s.api.UseMerchant(merchant, envelopetest.Form{})
	s.write("CAkey.pem", string(merchant.PEM()))
	s.api.AddKMSKey("kms-key")
}

// variants are checks with media in base64, in COS and in both, that pass, fail,
// and pass with each kind of intention step.
func variants(way string, product result.Product) []faceidtest.Check {
	forms := [][]faceidtest.Form{{faceidtest.Base64}, {faceidtest.COSKey}, {faceidtest.EscapedSlash, faceidtest.COSURL}}
	var list []faceidtest.Check
	for i, form := range forms {
		for j, outcome := range []string{"pass", "fail", "0", "1", "2", "0-refused", "1-refused", "2-refused"} {
			number := 0
			if product == result.EID {
				number = 1
			}
			c := faceidtest.NewCheck(number, 40<<10)
			c.Token = fmt.Sprintf("%s-%d-%s", way, i, outcome)
			c.Person.Name = fmt.Sprintf("测试%d%d", i, j)
			c.Person.IDCard = fmt.Sprintf("0000001900010%02d%02d0", i, j)
			c.Person.Address = fmt.Sprintf("虚构省测试市%d路%d号", i, j)
			c.Person.Mobile = fmt.Sprintf("0000000%02d%02d", i, j)
			c.FailedAttempts = j % 3
			c.Code, c.Intention, c.IntentionCode = 0, "", 0
			c.Media = c.Media[:3]
			switch outcome {
			case "fail":
				c.Code, c.Message = 2016, "比对相似度未达到通过标准"
			case "0", "1", "2":
				c.Intention = outcome
			case "0-refused", "1-refused", "2-refused":
				c.Intention, c.IntentionCode = outcome[:1], -301
			}
			intentionMedia := map[string]faceidtest.Medium{
				"0": {Field: "IntentionQuestionResult.Audios[0]", Kind: result.Audio, Size: 9000, Seed: 11},
				"1": {Field: "IntentionActionResult.Details[0].ScreenShot[0]", Kind: result.Image, Size: 9000, Seed: 12},
			}
			if m, ok := intentionMedia[c.Intention]; ok {
				c.Media = append(c.Media[:3:3], m)
			}
			for k := range c.Media {
				c.Media[k].Form = form[k%len(form)]
			}
			if c.Intention == "2" { // never in COS
				c.Media = append(c.Media[:3:3], faceidtest.Medium{Field: "IntentionVerifyData.IntentionVerifyVideo", Kind: result.Video, Size: 30000, Seed: 13, Form: faceidtest.Base64})
			}
			list = append(list, c)
		}
	}
	return list
}

// until runs the worker until so many results are recorded.
func (d *daemon) until(t *testing.T, total int) {
	t.Helper()
	_, records := d.demoSinks()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.crew.worker.Run(ctx) }()
	until(t, fmt.Sprintf("%d results are recorded", total), func() bool {
		n, err := records.Count(t.Context())
		return err == nil && n >= int64(total)
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// sameValues compares what was recorded of a person and the outcome.
func sameValues(t *testing.T, policy *privacy.Policy, records *sqldb.Sink, c faceidtest.Check) {
	t.Helper()
	r, err := records.Get(t.Context(), sinks.KeyOf(c.Product, c.Token))
	if err != nil {
		t.Fatal(err)
	}
	open := func(field privacy.Field, position int, s privacy.Stored) string {
		t.Helper()
		if s.Value == "" {
			return ""
		}
		value, err := policy.Open(privacy.Ref{Product: c.Product, Token: c.Token, Field: field, Position: position}, s.Value)
		if err != nil {
			t.Fatalf("%s: %s: %v", c.Token, field, err)
		}
		return value.Reveal()
	}
	want := c.Person
	last := c.FailedAttempts
	attempt := open(privacy.AttemptName, last, r.Attempts[last].Name) + open(privacy.AttemptIDCard, last, r.Attempts[last].IDCard)
	switch {
	case c.Product == result.Enhanced:
		if open(privacy.OCRAddress, 0, r.Document.Address) != want.Address || open(privacy.Mobile, 0, r.Person.Mobile) != want.Mobile {
			t.Errorf("%s: another address or phone", c.Token)
		}
		if attempt != want.Name+want.IDCard || open(privacy.OCRName, 0, r.Document.Name)+open(privacy.OCRIDCard, 0, r.Document.IDCard) != want.Name+want.IDCard {
			t.Errorf("%s: the attempt or the document has other values", c.Token)
		}
	case c.Code != 0:
		want = faceidtest.Person{} // eid tells who it was only when all is done
	case r.EID.IDType != "01":
		t.Errorf("%s: id type %q", c.Token, r.EID.IDType)
	}
	if name, number := open(privacy.Name, 0, r.Person.Name), open(privacy.IDCard, 0, r.Person.IDCard); name != want.Name || number != want.IDCard {
		t.Errorf("%s: recorded %q, %q for %q, %q", c.Token, name, number, want.Name, want.IDCard)
	}
	raw := open(privacy.Raw, 0, r.Raw)
	if !strings.Contains(raw, `"Extra":"order-`+c.Token+`"`) || want.Name != "" && !strings.Contains(raw, want.Name) {
		t.Errorf("%s: the raw answer is incomplete", c.Token)
	}
	sameVerdict(t, r.Verdict, c)
	for _, m := range c.Media {
		i := slices.IndexFunc(r.Assets, func(a privacy.Asset) bool { return a.Field == m.Field })
		if i < 0 {
			t.Errorf("%s: no %s", c.Token, m.Field)
			continue
		}
		want := (*privacy.COSObject)(nil)
		if m.Form.InCOS() {
			want = &privacy.COSObject{Bucket: c.Bucket, Region: c.Region, Key: m.Key()}
		}
		if got := r.Assets[i]; !reflect.DeepEqual(got.COS, want) || (got.Inline == nil) != (want != nil) {
			t.Errorf("%s: %s lies in %+v, want %+v", c.Token, m.Field, got.COS, want)
		}
	}
}

// sameVerdict compares an outcome with what the check chose.
func sameVerdict(t *testing.T, v privacy.Verdict, c faceidtest.Check) {
	t.Helper()
	modes := map[string]result.IntentionMode{"": result.IntentionOff, "0": result.IntentionQuestion, "1": result.IntentionNod, "2": result.IntentionReadAloud}
	if passed := c.Code == 0 && c.IntentionCode == 0; v.Passed != passed || v.Code != c.Code || v.Message != c.Message || v.Intention != modes[c.Intention] {
		t.Errorf("%s: verdict %+v", c.Token, v)
	}
	if c.Intention != "" && (v.IntentionCode == nil || *v.IntentionCode != c.IntentionCode) || c.Intention == "" && v.IntentionCode != nil {
		t.Errorf("%s: intention code %v, want %d", c.Token, v.IntentionCode, c.IntentionCode)
	}
	if (v.Similarity != "") != (c.Code == 0 || c.Code == 2016) || v.Liveness == nil || v.Compare == nil {
		t.Errorf("%s: %+v", c.Token, v)
	}
}

// TestKeysThatDoNotFit: clear words, and the event is kept.
func TestKeysThatDoNotFit(t *testing.T) {
	t.Parallel()
	stranger, err := envelopetest.GenerateMerchant()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		product  result.Product
		settings string
		change   func(*site)
		message  string
	}{
		{"wrong private key", result.EID, "eid: {private_key_file: FOLDER/CAkey.pem}", func(s *site) { s.write("CAkey.pem", string(stranger.PEM())) },
			"eid.private_key_file is not the key that the merchant registered"},
		{"no private key", result.EID, "", func(*site) {}, "configure eid.private_key_file"},
		{"rotated console key", result.Enhanced, "encryption: {mode: fields, algorithm: SM4-GCM, public_key_file: FOLDER/sm4.txt}", func(s *site) {
			keys, err := envelopetest.GenerateKeys(envelope.SM4GCM)
			if err != nil {
				t.Fatal(err)
			}
			s.api.UseKeys(envelope.SM4GCM, keys)
		}, "FailedOperation.DecryptSystemError: the service cannot open the request's key: check encryption.public_key_file and encryption.algorithm"},
		{"unknown KMS key", result.Enhanced, "encryption: {mode: body, kms_key_id: other, kms_endpoint: ENDPOINT}", func(*site) {},
			"KMS GenerateDataKey"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "shutdown_grace: 20s", "shutdown_grace: 1s") // it would wait for the account
			s.equip()
			test.change(s)
			settings := strings.NewReplacer("FOLDER", s.folder, "ENDPOINT", s.api.URL()).Replace(test.settings)
			if settings != "" {
				s.write("config.yaml", strings.Replace(read(t, s.config), "    rule_id:", "    "+settings+"\n    rule_id:", 1))
			}
			c := variants("main", test.product)[0]
			s.publish([]faceidtest.Check{c})
			p := s.start()
			p.says(test.message)
			until(t, "the event is not gone", func() bool { return s.open() == 1 })
			if status := s.status(); status.Dead != 0 {
				t.Errorf("given up: %+v", status)
			}
			p.stop()
		})
	}
}

// A merchant who did not apply for names gets results without them, key or not, and at
// once.
func TestMerchantWithoutPersons(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.equip()
	s.api.UseMerchant(nil, envelopetest.Form{})
	s.write("config.yaml", strings.Replace(read(t, s.config), "    rule_id:", "    eid: {private_key_file: "+s.path("CAkey.pem")+"}\n    rule_id:", 1))

	c := variants("main", result.EID)[0]
	s.publish([]faceidtest.Check{c})
	p := s.start()
	until(t, "the result is stored", func() bool { return s.open() == 0 })
	p.says("a result is stored without a part that the check has")
	p.stop()
	if text, _ := s.command(exitDone, "show", c.Token); !strings.Contains(text, "EidInfo.UserInfo") || !strings.Contains(text, "missing: the service did not send it") {
		t.Errorf("show does not say that there is no person:\n%s", text)
	}
}

func TestFileThatIsNoKey(t *testing.T) {
	s := newSite(t)
	s.write("config.yaml", strings.Replace(read(t, s.config), "    rule_id:", "    eid: {private_key_file: "+filepath.Base(s.config)+"}\n    rule_id:", 1))
	t.Chdir(s.folder)
	if _, stderr := s.command(exitUsage, "run"); !strings.Contains(stderr, "account main: read eid.private_key_file") || strings.Contains(stderr, "secret_id") {
		t.Errorf("%s", stderr)
	}
}
