// Package cam_test holds the CAM policies of this folder against what the program
// does: they allow all of it, and nothing else.
package cam_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func TestMain(m *testing.M) {
	// After a refusal in the middle of an upload net/http leaves a connection open for
	// half a second, also when its server is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

const (
	archive  = "evidence-1250000000"
	source   = "faceid-1250000000"
	region   = "ap-guangzhou"
	keyID    = "AKIDinvented"
	keyText  = "invented-secret-key"
	template = "faceid/{date}/{product}/{token_hash}/{field}.{ext}"
)

// statement is all that a statement of a policy may have here.
type statement struct {
	Effect   string   `json:"effect"`
	Action   []string `json:"action"`
	Resource []string `json:"resource"`
}

type policy struct {
	Version   string      `json:"version"`
	Statement []statement `json:"statement"`
}

// policies are the files of this folder, by their names without ".json".
func policies(t *testing.T) map[string]policy {
	t.Helper()
	files, err := filepath.Glob("policies/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	all := map[string]policy{}
	for _, file := range files {
		var p policy
		d := json.NewDecoder(bytes.NewReader([]byte(read(t, file))))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil || d.More() {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = p
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// actions returns what the named policies allow, sorted.
func actions(t *testing.T, names ...string) []string {
	t.Helper()
	all, set := policies(t), map[string]bool{}
	for _, name := range names {
		for _, s := range all[name].Statement {
			for _, a := range s.Action {
				set[a] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// TestSyntax checks what CAM does: version, effect, the form of actions and the six
// parts of a resource. FaceID and STS know no resources.
func TestSyntax(t *testing.T) {
	action := regexp.MustCompile(`^(faceid|kms|name/cos|name/sts):[A-Z][A-Za-z]+$`)
	resource := regexp.MustCompile(`^qcs::(cos):ap-[a-z]+:uid/[0-9]+:[a-z0-9-]+-[0-9]+/[^*]*\*$|^qcs::(kms):ap-[a-z]+:uin/[0-9]+:key/creatorUin/[0-9]+/[0-9a-f-]{36}$`)
	readme := read(t, "README.md")
	for name, p := range policies(t) {
		if p.Version != "2.0" || len(p.Statement) == 0 {
			t.Errorf("%s has version %q and %d statements", name, p.Version, len(p.Statement))
		}
		if n := strings.Count(readme, "](policies/"+name+".json)"); n != 2 {
			t.Errorf("README.md names %s %d times, want once in each language", name, n)
		}
		for _, s := range p.Statement {
			if s.Effect != "allow" || len(s.Action) == 0 || len(s.Resource) == 0 {
				t.Errorf("%s: %+v", name, s)
			}
			for _, a := range s.Action {
				m := action.FindStringSubmatch(a)
				if m == nil {
					t.Errorf("%s: %q is no action", name, a)
					continue
				}
				service := strings.TrimPrefix(m[1], "name/")
				for _, r := range s.Resource {
					parts := resource.FindStringSubmatch(r)
					if service == "faceid" || service == "sts" {
						if r != "*" {
							t.Errorf("%s: %s is for no resource but *", name, a)
						}
					} else if parts == nil || parts[1]+parts[2] != service {
						t.Errorf("%s: %s is for %q", name, a, r)
					}
				}
			}
		}
	}
}

// TestCalls holds the actions of the APIs against the calls in the sources. A service
// or an action that is new there needs a policy here.
func TestCalls(t *testing.T) {
	sources := map[string]string{}
	for _, folder := range []string{"../../cmd", "../../pipeline", "../../sinks"} {
		err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
			tests := strings.HasSuffix(path, "_test.go") || strings.HasSuffix(filepath.Dir(path), "test")
			if err == nil && filepath.Ext(path) == ".go" && !tests {
				sources[path] = read(t, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	found := func(pattern string) []string {
		set := map[string]bool{}
		for _, text := range sources {
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
				set[strings.Join(m[1:], ":")] = true
			}
		}
		return slices.Sorted(maps.Keys(set))
	}
	same := func(what string, have, want []string) {
		t.Helper()
		if !slices.Equal(have, want) {
			t.Errorf("%s: the program asks for %v, the policies allow %v", what, have, want)
		}
	}
	with := func(prefix string, names []string) []string {
		for i := range names {
			names[i] = prefix + names[i]
		}
		return names
	}
	same("services", append(found(`newCaller\("(\w+)"`), found(`NewCommonRequest\("(\w+)"`)...), []string{"faceid", "kms", "sts"})
	same("FaceID", with("faceid:", found(`return "(Get\w+)"\n`)), actions(t, "faceid"))
	same("KMS", with("kms:", found(`k\.call\(ctx, "(\w+)"`)), actions(t, "kms-results", "kms-keyring"))
	same("STS", with("name/sts:", found(`NewCommonRequest\("sts", "[^"]+", "(\w+)"`)), actions(t, "sts"))
	same("COS, in the policy of temporary keys", with("name/cos:", found(`"name/cos:(\w+)"`)),
		actions(t, "cos-archive", "cos-archive-tags", "cos-archive-retention", "cos-archive-versions", "cos-source", "cos-source-erase"))
}

// holder is a key pair with policies. It notes what was allowed.
type holder struct {
	policies map[string]policy

	mu   sync.Mutex
	used map[string]bool // "policy action"
	no   []string
}

// allow decides as CAM does, for the two buckets of the region.
func (h *holder) allow(action, bucket, key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	action = "name/cos:" + action
	object, allowed := "qcs::cos:"+region+":uid/1250000000:"+bucket+"/"+key, false
	for name, p := range h.policies {
		for _, s := range p.Statement {
			covers := func(resource string) bool { return strings.HasPrefix(object, strings.TrimSuffix(resource, "*")) }
			if slices.Contains(s.Action, action) && slices.ContainsFunc(s.Resource, covers) {
				h.used[name+" "+action] = true
				allowed = true
			}
		}
	}
	if !allowed {
		h.no = append(h.no, action+" on "+object)
	}
	return allowed
}

// ways are how the sink may be configured, and the policies it needs then.
var ways = map[string]struct {
	policies []string
	bucket   costest.BucketOptions
	change   func(c *cos.Config)
}{
	"copy":      {[]string{"cos-archive", "cos-source"}, costest.BucketOptions{}, func(*cos.Config) {}},
	"reference": {[]string{"cos-archive", "cos-source", "cos-source-erase"}, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = "reference" }},
	"pull":      {[]string{"cos-archive", "cos-source"}, costest.BucketOptions{}, func(c *cos.Config) { c.Mode, c.Seal = "pull", true }},
	"tags":      {[]string{"cos-archive", "cos-source", "cos-archive-tags"}, costest.BucketOptions{}, func(c *cos.Config) { c.Tags = map[string]string{"class": "evidence"} }},
	"versions":  {[]string{"cos-archive", "cos-source", "cos-archive-versions"}, costest.BucketOptions{Versioned: true}, func(*cos.Config) {}},
	"retention": {[]string{"cos-archive", "cos-source", "cos-archive-retention"}, costest.BucketOptions{ObjectLock: true}, func(c *cos.Config) {
		c.Retention = cos.Retention{Mode: "compliance", Days: 30}
	}},
}

// TestCOS has the real sink do all it can in a COS that lets it do only what the
// policies say. Nothing is refused, and nothing is allowed in vain.
func TestCOS(t *testing.T) {
	all, used := policies(t), map[string]bool{}
	for name, way := range ways {
		h := &holder{policies: map[string]policy{}, used: used}
		for _, p := range way.policies {
			h.policies[p] = all[p]
		}
		t.Run(name, func(t *testing.T) {
			server := start(t, way.bucket, h.allow)
			live(t, server, open(t, server, way.change), name == "retention")
			if len(h.no) > 0 {
				t.Errorf("the policies do not allow %v", h.no)
			}
		})
	}
	for name, p := range all {
		for _, s := range p.Statement {
			for _, a := range s.Action {
				if strings.HasPrefix(a, "name/cos:") && !used[name+" "+a] {
					t.Errorf("%s allows %s, which nobody asked for", name, a)
				}
			}
		}
	}
}

// TestCOSWithout shows that the test above would see an action that is missing.
func TestCOSWithout(t *testing.T) {
	p := policies(t)["cos-archive"]
	for i, s := range p.Statement {
		p.Statement[i].Action = slices.DeleteFunc(slices.Clone(s.Action), func(a string) bool { return a == "name/cos:PutObject" })
	}
	h := &holder{policies: map[string]policy{"cos-archive": p}, used: map[string]bool{}}
	server := start(t, costest.BucketOptions{}, h.allow)
	err := open(t, server, func(*cos.Config) {}).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "PutObject") || len(h.no) == 0 {
		t.Errorf("%v; refused was %v", err, h.no)
	}
}

// start returns a COS with both buckets, in which one key pair may do what allow says.
func start(t *testing.T, options costest.BucketOptions, allow func(action, bucket, key string) bool) *costest.Server {
	t.Helper()
	server, err := costest.Start(context.WithoutCancel(t.Context()), costest.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	server.AddCredential(costest.Credential{SecretID: keyID, SecretKey: keyText, Allow: allow})
	server.CreateBucket(archive, region, options)
	server.CreateBucket(source, region, costest.BucketOptions{})
	return server
}

// open returns a sink whose assets go up in parts where they are larger than a MiB.
func open(t *testing.T, server *costest.Server, change func(*cos.Config)) sinks.ArchiveKeeper {
	t.Helper()
	registered, ok := sinks.NewConfig("cos")
	if !ok {
		t.Fatal("there is no cos sink")
	}
	c := registered.(*cos.Config)
	c.Bucket, c.Region, c.Endpoint, c.Key = archive, region, server.URL(), template
	c.SecretID, c.SecretKey = keyID, keyText
	c.SinglePutLimit, c.PartSize = 1<<20, 1<<20
	change(c)
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	must(t, err)
	p, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	must(t, err)
	sink, err := c.Open(t.Context(), sinks.Env{Name: "media", Policy: p, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, sink.Close(context.Background())) })
	return sink.(sinks.ArchiveKeeper)
}

// live does with a sink what the daemon and the commands do: check, store a result
// after an upload that failed, store it again, list and verify it, erase it. What is
// locked cannot be erased.
func live(t *testing.T, server *costest.Server, sink sinks.ArchiveKeeper, locked bool) {
	t.Helper()
	ctx := t.Context()
	must(t, sink.Check(ctx))
	r := sinktest.Result(0)
	r.Assets = append(slices.Clone(r.Assets), sinktest.Inline("VideoData.Videos[1]", result.Video, "video/mp4", bytes.Repeat([]byte("x"), 3<<20)))
	for _, a := range r.Assets {
		if a.COS != nil {
			server.Put(a.COS.Bucket, a.COS.Key, "video/mp4", []byte("an object of FaceID"))
		}
	}
	lift := server.Inject(costest.Fault{Action: "UploadPart", Status: 500})
	if _, err := sink.Archive(ctx, r); err == nil {
		t.Error("a part failed, and nobody noticed")
	}
	lift()
	for range 2 {
		_, err := sink.Archive(ctx, r)
		must(t, err)
	}
	key := sinks.KeyOf(r.Product, r.Token)
	for _, err := range sink.Keys(ctx, sinks.Key{}) {
		must(t, err)
	}
	receipts, err := sink.Manifest(ctx, key)
	must(t, err)
	for _, receipt := range receipts {
		asset, err := sink.OpenAsset(ctx, key, receipt)
		must(t, err)
		must(t, asset.Close())
	}
	_, err = sink.Reseal(ctx, key)
	must(t, err)
	err = sinktest.Erase(ctx, sink, key)
	if says := err != nil && strings.Contains(err.Error(), "is locked until"); says != locked || err != nil && !locked {
		t.Errorf("erase: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
