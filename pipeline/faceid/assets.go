package faceid

import (
	"context"
	"sort"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// mediaField is a place of media in the Response object.
type mediaField struct {
	// pattern is the path with [] for array elements.
	pattern string
	kind    result.Kind
	// alwaysInline says that the field holds base64 even with data storage on.
	alwaysInline bool
}

// mediaFields are all places of media (FACTS §1.2, §1.3), in the order of
// Result.Assets.
var mediaFields = []mediaField{
	{"IdCardData.OcrFront", result.Image, false},
	{"IdCardData.OcrBack", result.Image, false},
	{"IdCardData.ProcessedFrontImage", result.Image, false},
	{"IdCardData.ProcessedBackImage", result.Image, false},
	{"IdCardData.Avatar", result.Image, false},
	{"BestFrame.BestFrame", result.Image, false},
	{"BestFrame.BestFrames[]", result.Image, false},
	{"VideoData.LivenessVideo", result.Video, false},
	{"VideoData.LivenessVideos[].Video", result.Video, false},
	{"IntentionVerifyData.IntentionVerifyVideo", result.Video, true},
	{"IntentionVerifyData.IntentionVerifyBestFrame", result.Image, true},
	// Whether this one moves to COS is not documented (FACTS §1.2).
	{"IntentionVerifyData.IntentionVerifyAudio", result.Audio, false},
	{"IntentionQuestionResult.Video", result.Video, false},
	{"IntentionQuestionResult.ScreenShot[]", result.Image, false},
	{"IntentionQuestionResult.Audios[]", result.Audio, false},
	{"IntentionActionResult.Details[].Video", result.Video, false},
	{"IntentionActionResult.Details[].ScreenShot[]", result.Image, false},
}

// mediaRank maps a pattern to its place in mediaFields.
var mediaRank = func() map[string]int {
	rank := make(map[string]int, len(mediaFields))
	for i, f := range mediaFields {
		rank[f.pattern] = i
	}
	return rank
}()

func mediaPatterns() []string {
	patterns := make([]string, len(mediaFields))
	for i, f := range mediaFields {
		patterns[i] = f.pattern
	}
	return patterns
}

// finder collects the assets of one answer.
type finder struct {
	ctx      context.Context //nolint:containedctx // a finder lives within one call.
	batch    *spool.Batch
	media    map[string]extract.Medium
	resolver resolver
	// inCOS and bucket are IsCustomizeStorage and BucketName.
	inCOS  bool
	bucket string
	// last has a place that cannot be followed cost its asset, and not the result.
	last bool

	found   []ranked
	missing []result.Missing
}

type ranked struct {
	rank  int
	asset result.Asset
}

// assets walks the answer and returns its assets in the order of mediaFields,
// unknown ones last. In the answer it leaves "asset:<field>" where inline media
// were.
func (f *finder) assets(response map[string]any) ([]result.Asset, error) {
	if _, err := f.walk(response, "", ""); err != nil {
		return nil, err
	}
	sort.SliceStable(f.found, func(i, j int) bool { return f.found[i].rank < f.found[j].rank })
	out := make([]result.Asset, len(f.found))
	names := map[string]int{}
	for i, r := range f.found {
		out[i] = r.asset
		// Odd keys may look the same once they are made safe.
		if n := names[r.asset.Field]; n > 0 {
			out[i].Field += "~" + strconv.Itoa(n)
		}
		names[r.asset.Field]++
	}
	return out, nil
}

// walk returns v with its inline media replaced.
func (f *finder) walk(v any, pattern, field string) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		for _, key := range keys {
			to, err := f.walk(v[key], join(pattern, key), join(field, key))
			if err != nil {
				return nil, err
			}
			v[key] = to
		}
		return v, nil
	case []any:
		for i := range v {
			to, err := f.walk(v[i], pattern+"[]", field+"["+strconv.Itoa(i)+"]")
			if err != nil {
				return nil, err
			}
			v[i] = to
		}
		return v, nil
	case string:
		return f.text(v, pattern, field)
	default:
		return v, nil
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// text looks at one string of the answer.
func (f *finder) text(v, pattern, field string) (any, error) {
	rank, known := mediaRank[pattern]
	if m, taken := f.media[v]; taken {
		asset := inline(m.Field, m.Item)
		if !m.Known {
			// Its characters are kept as they were; what they mean is not known.
			asset.Kind, rank = result.Unknown, len(mediaFields)
		}
		f.add(rank, asset)
		return "asset:" + asset.Field, nil
	}
	if !known || strings.TrimSpace(v) == "" {
		return v, nil
	}
	decoded, isPath, ok := f.short(v, mediaFields[rank])
	if !ok {
		// It will be no other when it is asked for again.
		f.missing = append(f.missing, result.Missing{Field: field, Reason: result.NotMedia})
		return v, nil
	}
	if isPath {
		object, err := f.resolver.resolve(v, f.bucket)
		switch {
		case err != nil && f.last:
			f.missing = append(f.missing, result.Missing{Field: field, Reason: result.ForeignPlace})
			return v, nil
		case err != nil:
			// The form of paths is not documented, and the bucket may be configured
			// wrongly: while there is time, its owner can mend that.
			return nil, failure(RequestTrouble, "%s: %w", field, err)
		}
		f.add(rank, result.Asset{Field: field, Kind: mediaFields[rank].kind, ContentType: typeByName(object.Key), COS: &object})
		return v, nil
	}
	if len(decoded) == 0 {
		// A data URI with nothing in it is as good as no value.
		return v, nil
	}
	w := f.batch.Create(f.ctx)
	if _, err := w.Write(decoded); err != nil {
		return nil, err
	}
	item, err := w.Finish()
	if err != nil {
		return nil, err
	}
	f.add(rank, inline(field, item))
	return "asset:" + field, nil
}

func (f *finder) add(rank int, a result.Asset) {
	if a.Kind == result.Unknown && rank < len(mediaFields) {
		a.Kind = mediaFields[rank].kind
	}
	f.found = append(f.found, ranked{rank, a})
}

func inline(field string, item *spool.Item) result.Asset {
	return result.Asset{Field: field, Kind: item.Kind(), ContentType: item.ContentType(), Content: item, Digest: item.Digest()}
}

// short decides what the short string of a media field is: media in base64, or a
// path in COS. Base64 that begins like a known medium is one, whatever the
// answer says of its storage; "/9j/" begins a JPEG, not a path. Otherwise, with
// data storage on or in the form of a URL or a file name, it is a path.
// ok is false for what is neither.
func (f *finder) short(v string, field mediaField) (decoded []byte, isPath, ok bool) {
	decoded, err := extract.DecodeBase64(v)
	isBase64 := err == nil
	switch {
	case isBase64 && (field.alwaysInline || len(decoded) == 0 || spool.KindOf(decoded) != result.Unknown):
		return decoded, false, true
	case field.alwaysInline:
		return nil, false, false
	case f.inCOS || strings.ContainsAny(v, ".:"):
		return nil, true, true
	case isBase64:
		return decoded, false, true
	default:
		return nil, false, false
	}
}
