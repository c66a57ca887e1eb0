package cos

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"mime"
	"regexp"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const (
	manifestName = "manifest.json"
	// maxKey is the length of COS's longest key, in bytes.
	maxKey = 850
)

// template is a key template, parted into the folder of a token and the name of an
// asset in it.
type template struct{ folder, name string }

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// placeholders are those of a template; the ones that are true are of an asset, not
// of the token.
var placeholders = map[string]bool{
	"{date}": false, "{year}": false, "{month}": false, "{day}": false, "{product}": false,
	"{account}": false, "{token_hash}": false, "{field}": true, "{ext}": true,
}

// literal is what a template may have between placeholders: characters that mean
// nothing to a URL, a shell or COS.
var literal = regexp.MustCompile(`^[A-Za-z0-9/_.=-]*$`)

// parseTemplate reads a template. The last part, behind the last slash, names the
// asset and needs {field}; the folder before it needs {token_hash} and is the
// token's alone, so nothing of an asset may be in it.
//
// {date} is the UTC day (2006-01-02) on which the first result of the token was
// fetched; {year}, {month} and {day} are its parts.
func parseTemplate(text string) (template, error) {
	if len(text) > maxKey || len(longest.Replace(text)) > maxKey {
		return template{}, fmt.Errorf("gives keys longer than COS's %d bytes", maxKey)
	}
	if !literal.MatchString(placeholder.ReplaceAllString(text, "")) {
		return template{}, fmt.Errorf("may have letters, digits and /_.=- beside placeholders")
	}
	for _, p := range placeholder.FindAllString(text, -1) {
		if _, known := placeholders[p]; !known {
			return template{}, fmt.Errorf("unknown placeholder %s; known are {date}, {year}, {month}, {day}, {product}, {account}, {token_hash}, {field}, {ext}", p)
		}
	}
	cut := strings.LastIndexByte(text, '/') + 1
	t := template{text[:cut], text[cut:]}
	switch {
	case !strings.Contains(t.folder, "{token_hash}"):
		return template{}, fmt.Errorf("must have {token_hash} in the folder before the last slash, which is the token's own")
	case strings.Contains(t.folder, "{field}") || strings.Contains(t.folder, "{ext}"):
		return template{}, fmt.Errorf("must have {field} and {ext} behind the last slash only")
	case !strings.Contains(t.name, "{field}"):
		return template{}, fmt.Errorf("must have {field} behind the last slash")
	case strings.HasPrefix(text, "/") || strings.Contains(text, "//"):
		return template{}, fmt.Errorf("must not have an empty folder")
	case strings.HasPrefix(text, ".") || strings.Contains(text, "/."):
		return template{}, fmt.Errorf("must not have a folder or name that begins with a dot")
	}
	return t, nil
}

// longest fills in the longest value of each placeholder.
var longest = strings.NewReplacer(
	"{date}", "2006-01-02", "{product}", "enhanced", "{account}", strings.Repeat("a", 63),
	"{token_hash}", strings.Repeat("0", 32), "{field}", strings.Repeat("f", result.MaxFieldName), "{ext}", "jpeg",
)

// place fills in all that is of the token. What is left of the name are {field} and
// {ext}.
func (t template) place(r *result.Result) place {
	day := r.FetchedAt.UTC()
	fill := strings.NewReplacer(
		"{date}", day.Format("2006-01-02"), "{year}", day.Format("2006"),
		"{month}", day.Format("01"), "{day}", day.Format("02"),
		"{product}", string(r.Product), "{account}", accountName(r.Account), "{token_hash}", r.TokenHash(),
	)
	return place{Folder: fill.Replace(t.folder), Name: fill.Replace(t.name)}
}

// place is where a token's objects are, as the index object keeps it.
type place struct {
	// Folder ends with a slash.
	Folder string `json:"folder"`
	// Name is the name of an asset in the folder, with {field} and {ext} to be
	// filled in.
	Name string `json:"name"`
}

// valid tells whether a place that was read may be one of a token.
func (p place) valid(hash string) bool {
	t, err := parseTemplate(strings.ReplaceAll(p.Folder, hash, "{token_hash}") + p.Name)
	return err == nil && t.name == p.Name && strings.HasSuffix(p.Folder, "/") &&
		placeholder.FindString(p.Folder) == "" &&
		!strings.Contains(strings.NewReplacer("{field}", "", "{ext}", "").Replace(p.Name), "{")
}

// key returns the key of an asset. Different fields have different keys, all of them
// in the folder and none of them the manifest's.
func (p place) key(field, contentType string) string {
	name := p.fill(result.FieldName(field), contentType)
	if name == manifestName {
		name = p.fill(result.HashedName(field), contentType)
	}
	return p.Folder + name
}

func (p place) fill(field, contentType string) string {
	return strings.NewReplacer("{field}", field, "{ext}", result.Extension(contentType)).Replace(p.Name)
}

func (p place) manifest() string { return p.Folder + manifestName }

var plainAccount = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// accountName returns an account as it is in a key.
func accountName(account string) string {
	if plainAccount.MatchString(account) {
		return account
	}
	sum := sha256.Sum256([]byte(account))
	return "account_" + hex.EncodeToString(sum[:8])
}

// mediaType returns a content type that may be sent in a header.
func mediaType(contentType string) string {
	base, _, err := mime.ParseMediaType(contentType)
	if err != nil || len(base) > 100 || !strings.Contains(base, "/") {
		return "application/octet-stream"
	}
	return base
}
