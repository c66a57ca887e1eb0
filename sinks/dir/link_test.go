package dir_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// decoy puts a link to a folder with a file of somebody else's in place of what is at
// path, and returns the folder.
func decoy(t *testing.T, path, target string) string {
	t.Helper()
	must(t, os.RemoveAll(path))
	must(t, os.MkdirAll(target, 0o700))
	must(t, os.WriteFile(filepath.Join(target, "precious"), []byte("of somebody else"), 0o600))
	must(t, os.Symlink(target, path))
	return target
}

// Nothing is done through a symbolic link in an archive, wherever it leads: what is there
// stays as it was.
func TestLinksAreRefused(t *testing.T) {
	t.Parallel()
	r := sinktest.Result(0)
	token := dir.Folder(r.Product, r.Token)
	shard := filepath.Dir(token)
	for name, link := range map[string]string{
		"product": "enhanced", "shard": shard, "temporary folder": filepath.Join(shard, ".tmp"), "token": token,
	} {
		for where, target := range map[string]string{"outside": "../other", "inside": "eid/ab/" + strings.Repeat("ab", 16)} {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				v := newVault(t)
				sink := v.open(t, true)
				archive(t, sink, r)
				target := decoy(t, filepath.Join(v.root, link), filepath.Join(v.root, target))
				before := files(t, target)

				_, archiveErr := sink.Archive(t.Context(), r)
				_, eraseErr := sink.Erase(t.Context(), key(r), "")
				errs := map[string]error{"Archive": archiveErr, "Erase": eraseErr}
				if name != "temporary folder" { // where nothing is read
					_, errs["Manifest"] = sink.Manifest(t.Context(), key(r))
					_, errs["Holds"] = sink.Holds(t.Context(), key(r))
				}
				if name != "token" { // which are not looked at when the archive is opened
					_, errs["Open"] = (&dir.Config{Path: v.root, Seal: true}).Open(t.Context(), v.env)
				}
				for call, err := range errs {
					if err == nil || !strings.Contains(err.Error(), filepath.Join(v.root, link)+": a symbolic link is in the way") {
						t.Errorf("%s says %v", call, err)
					}
				}
				if !maps.Equal(files(t, target), before) {
					t.Errorf("what the link leads to has changed: %v", files(t, target))
				}
			})
		}
	}
}

// A token behind a link is listed, so that whoever goes through the archive finds out.
func TestKeysNamesTokensBehindLinks(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, true)
	archive(t, sink, r)
	decoy(t, v.folder(r), filepath.Join(v.root, "../other"))
	var found []sinks.Key
	for k, err := range sink.Keys(t.Context(), sinks.Key{}) {
		must(t, err)
		found = append(found, k)
	}
	if len(found) != 1 || found[0] != key(r) {
		t.Errorf("listed %v", found)
	}
}

// A file that was replaced by a link is not read through it, and the next delivery puts
// the file back.
func TestLinkInPlaceOfFile(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	r := sinktest.Result(0)
	sink := v.open(t, true)
	receipts := archive(t, sink, r)
	path := filepath.Join(v.root, receipts[0].Location)
	elsewhere := filepath.Join(t.TempDir(), "file")
	must(t, os.Rename(path, elsewhere))
	must(t, os.Symlink(elsewhere, path))
	if _, err := sink.OpenAsset(t.Context(), key(r), receipts[0]); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("OpenAsset says %v", err)
	}

	archive(t, sink, r)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Stat(elsewhere); err != nil {
		t.Error(err)
	}
}

// The archive folder itself may be a link: that is where its owner has put it.
func TestArchiveFolderIsALink(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.open(t, true)
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(v.root, link))
	sink, err := (&dir.Config{Path: link, Seal: true}).Open(t.Context(), v.env)
	must(t, err)
	r := sinktest.Result(0)
	archive(t, sink, r)
	if _, err := dir.ReadManifest(v.root, r.Product, r.Token); err != nil {
		t.Error(err)
	}
}
