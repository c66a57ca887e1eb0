//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// digestsOf computes the digests of all media from their seeds.
func digestsOf(tokens []*issued) (map[uint64]result.Digest, error) {
	digests := map[uint64]result.Digest{}
	for _, t := range tokens {
		for _, m := range t.media() {
			d, err := digestOf(m.Reader())
			if err != nil {
				return nil, err
			}
			digests[m.Seed] = d
		}
	}
	return digests, nil
}

var ecma = crc64.MakeTable(crc64.ECMA)

func digestOf(r io.Reader) (result.Digest, error) {
	sum, crc := sha256.New(), crc64.New(ecma)
	n, err := io.Copy(io.MultiWriter(sum, crc), r)
	return result.Digest{Size: n, SHA256: [sha256.Size]byte(sum.Sum(nil)), CRC64: crc.Sum64()}, err
}

// auditArchives reads every asset of every archive and compares it with the bytes
// that were issued.
func (a *auditor) auditArchives(ctx context.Context) error {
	for name, sink := range a.sinks {
		archive, ok := sink.(sinks.ArchiveKeeper)
		if !ok {
			continue
		}
		for _, t := range a.tokens {
			receipts, err := archive.Manifest(ctx, sinks.KeyOf(t.Product, t.Token))
			if errors.Is(err, sinks.ErrNotFound) {
				continue // auditKeys has said so
			}
			if err != nil {
				return err
			}
			if problem := a.sameAssets(ctx, archive, t, receipts); problem != "" {
				a.differ("sink %s, %s (account %s): %s", name, t.Token, t.account, problem)
			}
		}
	}
	return nil
}

func (a *auditor) sameAssets(ctx context.Context, archive sinks.ArchiveKeeper, t *issued, receipts []sinks.Receipt) string {
	media := map[string]faceidtest.Medium{}
	for _, m := range t.media() {
		media[m.Field] = m
	}
	if len(receipts) != len(media) {
		return fmt.Sprintf("the manifest lists %d assets, not %d", len(receipts), len(media))
	}
	for _, receipt := range receipts {
		m, ok := media[receipt.Field]
		if !ok {
			return "the manifest lists " + receipt.Field
		}
		delete(media, receipt.Field)
		if receipt.Location == "cos://"+faceidBucket+"/"+m.Key() {
			continue // left where it is, as the dir sink does
		}
		if problem := a.sameBytes(ctx, archive, t, receipt, m); problem != "" {
			return receipt.Field + ": " + problem
		}
	}
	return ""
}

// sameBytes reads an asset back.
func (a *auditor) sameBytes(ctx context.Context, archive sinks.ArchiveKeeper, t *issued, receipt sinks.Receipt, m faceidtest.Medium) string {
	asset, err := archive.OpenAsset(ctx, sinks.KeyOf(t.Product, t.Token), receipt)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = asset.Close() }() // it was read to its end
	d, err := digestOf(asset)
	switch {
	case err != nil:
		return err.Error()
	case d != a.digests[m.Seed]:
		return "other bytes than those issued"
	}
	return ""
}

// auditObjects looks for objects in COS that belong to nothing.
func (a *auditor) auditObjects(ctx context.Context) error {
	archive, ok := a.sinks["evidence"].(sinks.ArchiveKeeper)
	if !ok {
		return errors.New("the COS sink keeps no archive")
	}
	want := map[string]bool{".index/keyring": true} // which keyring seals it
	for _, t := range a.tokens {
		receipts, err := archive.Manifest(ctx, sinks.KeyOf(t.Product, t.Token))
		if errors.Is(err, sinks.ErrNotFound) || err == nil && len(receipts) == 0 {
			continue
		}
		if err != nil {
			return err
		}
		want[".index/"+string(t.Product)+"/"+t.hash()] = true
		for _, receipt := range receipts {
			key := strings.TrimPrefix(receipt.Location, "cos://"+archiveBucket+"/")
			want[key], want[path.Dir(key)+"/manifest.json"] = true, true
		}
	}
	for _, o := range a.standIns.cos.Objects(archiveBucket) {
		if !want[o.Key] {
			a.double("object %s belongs to no token, or to one that is elsewhere", o.Key)
		}
		delete(want, o.Key)
	}
	for key := range want {
		a.lose("object %s is gone", key)
	}
	a.figures.uploadsLeft = len(a.standIns.cos.Uploads(archiveBucket))
	return nil
}

// auditFiles looks for files in the folder that belong to nothing.
func (a *auditor) auditFiles(ctx context.Context) error {
	archive, ok := a.sinks["files"].(sinks.ArchiveKeeper)
	if !ok {
		return errors.New("the dir sink keeps no archive")
	}
	want := map[string]bool{"keyring-fingerprint.json": true} // which keyring seals it
	for _, t := range a.tokens {
		hash := t.hash()
		folder := path.Join(string(t.Product), hash[:2], hash)
		receipts, err := archive.Manifest(ctx, sinks.KeyOf(t.Product, t.Token))
		if errors.Is(err, sinks.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		want[folder+"/manifest.json"] = true
		for _, receipt := range receipts {
			if !strings.HasPrefix(receipt.Location, "cos://") {
				want[receipt.Location] = true
			}
		}
	}
	err := filepath.WalkDir(a.archive, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == ".lock" {
			return err
		}
		relative, err := filepath.Rel(a.archive, name)
		if !want[filepath.ToSlash(relative)] {
			a.double("file %s belongs to no token", relative)
		}
		delete(want, filepath.ToSlash(relative))
		return err
	})
	for name := range want {
		a.lose("file %s is gone", name)
	}
	return err
}
