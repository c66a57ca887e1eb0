package dir_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// vault is an archive folder with a keyring.
type vault struct {
	root string
	keys *privacy.Keyring
	env  sinks.Env
}

func newVault(t testing.TB) *vault {
	t.Helper()
	keys, err := privacy.CreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	must(t, err)
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	must(t, err)
	e := env(&strings.Builder{})
	e.Policy = policy
	return &vault{root: filepath.Join(t.TempDir(), "media"), keys: keys, env: e}
}

func (v *vault) open(t testing.TB, seal bool) *dir.Sink {
	t.Helper()
	sink, err := (&dir.Config{Path: v.root, Seal: seal}).Open(t.Context(), v.env)
	must(t, err)
	return sink.(*dir.Sink)
}

func (v *vault) folder(r *result.Result) string {
	return filepath.Join(v.root, dir.Folder(r.Product, r.Token))
}

func files(t testing.TB, folder string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name := range inodes(t, folder) {
		b, err := os.ReadFile(filepath.Join(folder, name))
		must(t, err)
		all[name] = string(b)
	}
	return all
}

// inline returns the bytes of an asset.
func inline(t testing.TB, a result.Asset) []byte {
	t.Helper()
	r, err := a.Content.Open()
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	return b
}

func key(r *result.Result) sinks.Key { return sinks.KeyOf(r.Product, r.Token) }

func readAsset(ctx context.Context, sink *dir.Sink, k sinks.Key, receipt sinks.Receipt) ([]byte, error) {
	asset, err := sink.OpenAsset(ctx, k, receipt)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(asset)
	return b, errors.Join(err, asset.Close())
}

func TestSealedFiles(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, true)
	archive(t, sink, r)
	m, err := dir.Verify(t.Context(), v.root, r.Product, r.Token)
	must(t, err)
	stored := files(t, v.folder(r))
	for i, e := range m.Assets {
		a := r.Assets[i]
		if a.Content == nil {
			if e.Sealed != nil {
				t.Errorf("the asset in COS is sealed")
			}
			continue
		}
		if !strings.HasSuffix(e.File, ".sealed") || e.Size != a.Digest.Size || e.SHA256 != a.Digest.SHA256Hex() ||
			e.Sealed.Size != int64(len(stored[e.File])) || e.Sealed.KeyID != v.keys.List()[0].ID || e.Sealed.Cipher != privacy.AES256GCM {
			t.Errorf("the manifest says %+v, %+v", e, e.Sealed)
		}
	}
	for name, content := range stored {
		for _, a := range r.Assets {
			if a.Content != nil && strings.Contains(content, string(inline(t, a)[:32])) {
				t.Errorf("%s shows an asset", name)
			}
		}
	}

	// The same again in another folder gives the same bytes.
	again := &vault{root: filepath.Join(t.TempDir(), "again"), keys: v.keys, env: v.env}
	archive(t, again.open(t, true), r)
	if !maps.Equal(files(t, again.folder(r)), stored) {
		t.Error("the same result sealed elsewhere has other files")
	}
}

func TestSealNeedsAKeyring(t *testing.T) {
	t.Parallel()
	cfg := privacy.DefaultConfig()
	for f := range cfg.Fields {
		cfg.Fields[f] = privacy.Plain
	}
	e := env(&strings.Builder{})
	var err error
	e.Policy, err = privacy.NewPolicy(cfg, nil)
	must(t, err)
	if _, err := (&dir.Config{Path: t.TempDir(), Seal: true}).Open(t.Context(), e); err == nil || !strings.Contains(err.Error(), "privacy.keyring_file") {
		t.Errorf("the error is %v", err)
	}
}

// A redelivery under another configuration changes the form and leaves nothing of
// the form before.
func TestSealIsSwitched(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	for _, seal := range []bool{false, true, false, true} {
		sink := v.open(t, seal)
		receipts := archive(t, sink, r)
		archive(t, sink, r)
		names := slices.Sorted(maps.Keys(inodes(t, v.folder(r))))
		if len(names) != 5 {
			t.Errorf("seal %v: files %v, want 4 assets and a manifest", seal, names)
		}
		for _, name := range names {
			if name != "manifest.json" && strings.HasSuffix(name, ".sealed") != seal {
				t.Errorf("seal %v: there is %s", seal, name)
			}
		}
		// A sink of the other configuration reads both.
		for i, a := range r.Assets {
			if a.Content == nil {
				continue
			}
			if b, err := readAsset(t.Context(), v.open(t, !seal), key(r), receipts[i]); err != nil || !bytes.Equal(b, inline(t, a)) {
				t.Errorf("seal %v: asset %d: %v", seal, i, err)
			}
		}
	}
}

// A process may die after the manifest and before the files of the other form go.
func TestForgottenTwinIsRemoved(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, true)
	archive(t, sink, r)
	left := filepath.Join(v.folder(r), "BestFrame.BestFrame.png")
	must(t, os.WriteFile(left, []byte("in the clear"), 0o600))
	archive(t, sink, r)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file in the clear is still there: %v", err)
	}
}

// After a rotation, a redelivery leaves sealed files alone; Reseal changes them.
func TestRotation(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, true)
	archive(t, sink, r)
	before := files(t, v.folder(r))
	old := v.keys.List()[0].ID
	fresh, err := v.keys.Rotate()
	must(t, err)
	archive(t, sink, r)
	if !maps.Equal(files(t, v.folder(r)), before) {
		t.Error("a redelivery has changed files")
	}
	if changed, err := sink.Reseal(t.Context(), key(r)); !changed || err != nil {
		t.Errorf("Reseal: %v, %v", changed, err)
	}
	m, err := dir.Verify(t.Context(), v.root, r.Product, r.Token)
	must(t, err)
	for _, e := range m.Assets {
		if e.Sealed != nil && e.Sealed.KeyID != fresh.ID {
			t.Errorf("%s is sealed under %s, want %s", e.File, e.Sealed.KeyID, fresh.ID)
		}
	}
	// A crash may leave a manifest that is older than its files.
	manifest := filepath.Join(v.folder(r), "manifest.json")
	whole, err := os.ReadFile(manifest)
	must(t, err)
	must(t, os.WriteFile(manifest, []byte(before["manifest.json"]), 0o600))
	archive(t, sink, r)
	if changed, err := sink.Reseal(t.Context(), key(r)); !changed || err != nil {
		t.Errorf("Reseal after a crash: %v, %v", changed, err)
	}
	if mended, err := os.ReadFile(manifest); err != nil || !bytes.Equal(mended, whole) {
		t.Errorf("the manifest is %s, want %s", mended, whole)
	}
	must(t, v.keys.Remove(old))
	if _, err := sink.Reseal(t.Context(), key(r)); err != nil {
		t.Error(err)
	}
}

// What was altered on disk does not come back, sealed or not.
func TestOpenAssetFindsDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"cut":     func(path string) error { return os.Truncate(path, 3) },
		"altered": flip,
		"longer":  func(path string) error { return os.Truncate(path, 5000) },
		"empty":   func(path string) error { return os.Truncate(path, 0) },
	} {
		for _, seal := range []bool{false, true} {
			v := newVault(t)
			r := sinktest.Result(0)
			sink := v.open(t, seal)
			receipts := archive(t, sink, r)
			path := filepath.Join(v.root, receipts[1].Location)
			must(t, damage(path))
			b, err := readAsset(t.Context(), sink, key(r), receipts[1])
			damaged := errors.Is(err, sinks.ErrDamaged) || errors.Is(err, privacy.ErrNotAuthentic)
			if !damaged || seal && len(b) > 0 {
				t.Errorf("%s, seal %v: %d bytes, %v", name, seal, len(b), err)
			}
			must(t, os.Remove(path))
			if _, err := readAsset(t.Context(), sink, key(r), receipts[1]); !errors.Is(err, sinks.ErrNotFound) {
				t.Errorf("gone: %v, want ErrNotFound", err)
			}
		}
	}
}

// Reseal of a damaged file fails and leaves it as it is.
func TestResealOfDamage(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, true)
	receipts := archive(t, sink, r)
	must(t, flip(filepath.Join(v.root, receipts[0].Location)))
	before := files(t, v.folder(r))
	_, err := v.keys.Rotate()
	must(t, err)
	if _, err := sink.Reseal(t.Context(), key(r)); !errors.Is(err, privacy.ErrNotAuthentic) || !strings.Contains(err.Error(), "IdCardData.OcrFront") {
		t.Errorf("Reseal says %v", err)
	}
	if !maps.Equal(files(t, v.folder(r)), before) {
		t.Error("Reseal has changed files")
	}
}

// A missing archive is not an empty one.
func TestKeepersOfAnArchiveThatIsGone(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, false)
	receipts := archive(t, sink, r)
	must(t, os.Rename(v.root, v.root+".gone"))
	_, manifest := sink.Manifest(t.Context(), key(r))
	_, asset := sink.OpenAsset(t.Context(), key(r), receipts[0])
	_, reseal := sink.Reseal(t.Context(), key(r))
	var keys error
	for _, keys = range sink.Keys(t.Context(), sinks.Key{}) {
		break
	}
	for call, err := range map[string]error{
		"Manifest": manifest, "OpenAsset": asset, "Reseal": reseal, "Keys": keys, "Erase": sinktest.Erase(t.Context(), sink, key(r)),
	} {
		if err == nil || errors.Is(err, sinks.ErrNotFound) || !strings.Contains(err.Error(), "mount its volume") {
			t.Errorf("%s says %v", call, err)
		}
	}
}

// No key leads out of the archive.
func TestHostileKeys(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	sink := v.open(t, false)
	outside := filepath.Join(filepath.Dir(v.root), "manifest.json")
	must(t, os.WriteFile(outside, []byte(`{"version":1}`), 0o600))
	for _, k := range []sinks.Key{
		{}, {Product: "eid"}, {Product: "..", Hash: strings.Repeat("a", 32)}, {Product: "eid", Hash: "../../.."},
		{Product: "eid", Hash: strings.Repeat("A", 32)}, {Product: "eid", Hash: strings.Repeat("a", 32) + "/../../../.."},
	} {
		if _, err := sink.Manifest(t.Context(), k); !errors.Is(err, sinks.ErrNotFound) {
			t.Errorf("%v: Manifest says %v", k, err)
		}
		if class, _ := sinks.ClassOf(sinktest.Erase(t.Context(), sink, k)); class != sinks.ClassPermanent {
			t.Errorf("%v: the class of Erase is %q", k, class)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

// Foreign files beside the archive's are no tokens.
func TestKeysSkipsWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, false)
	archive(t, sink, r)
	shard := filepath.Dir(v.folder(r))
	for _, folder := range []string{
		filepath.Join(v.root, "enhanced", "zz"), filepath.Join(shard, strings.Repeat("f", 32)), filepath.Join(shard, "lost+found"),
	} {
		must(t, os.MkdirAll(folder, 0o700))
		must(t, os.WriteFile(filepath.Join(folder, "manifest.json"), nil, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(v.root, "enhanced", "note"), nil, 0o600))
	var keys []sinks.Key
	for k, err := range sink.Keys(t.Context(), sinks.Key{}) {
		must(t, err)
		keys = append(keys, k)
	}
	if !slices.Equal(keys, []sinks.Key{key(r)}) {
		t.Errorf("keys %v", keys)
	}
}

func TestTombstone(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, true)
	archive(t, sink, r)
	must(t, sinktest.Erase(t.Context(), sink, key(r)))
	stored := files(t, v.folder(r))
	var left map[string]string
	must(t, json.Unmarshal([]byte(stored["erased.json"]), &left))
	if len(stored) != 1 || len(left) != 4 || left["product"] != "enhanced" || left["token_hash"] != r.TokenHash() || left["erased_at"] == "" || left["reason"] == "" {
		t.Errorf("what is left: %v", stored)
	}
	if _, err := dir.ReadManifest(v.root, r.Product, r.Token); !errors.Is(err, sinks.ErrErased) {
		t.Errorf("ReadManifest says %v", err)
	}
	must(t, os.Remove(filepath.Join(v.folder(r), "erased.json")))
	archive(t, sink, r) // its owner has let it in again
}
