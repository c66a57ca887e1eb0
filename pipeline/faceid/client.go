// Package faceid pulls the result of a finished check from Tencent Cloud's
// FaceID API and turns it into a result.Result.
//
// A product, a token and a rule go in; a result comes out, its media in the
// given spool.Batch. Requests are signed and sent by Tencent's SDK; below it, the
// extractor takes the media out of the answer as it arrives, so that the SDK only
// sees a small JSON. Errors say their class, and hold nothing of an answer.
package faceid

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

// apiVersion is the version of the FaceID API (FACTS §1).
const apiVersion = "2018-03-01"

// Credential is what signs requests.
type Credential struct {
	SecretID, SecretKey string
	// Token belongs to temporary (STS) credentials; empty otherwise.
	Token string
}

// Storage is where FaceID puts media when the account has data storage on.
type Storage struct {
	// Bucket is the full name with the APPID; Region is such as "ap-guangzhou".
	// Assets in any other bucket are refused.
	Bucket, Region string
}

// Limiter holds calls back so that the account stays within its rate;
// *limit.Limiter is one.
type Limiter interface {
	// Wait returns when one request may be sent.
	Wait(ctx context.Context, p limit.Priority) error
	// Throttled is told that the API refused a request for the number of requests,
	// and how long it wants not to be asked; 0 if it did not say.
	Throttled(after time.Duration)
}

// Config says how to call the API for one account.
type Config struct {
	// Account is the configured name of the account; results carry it.
	Account string
	// Endpoint is a URL without a path, such as https://faceid.tencentcloudapi.com.
	Endpoint string
	// Region is the public parameter X-TC-Region; may be empty.
	Region string
	// Credentials is asked before every call, so that rotated secrets are used.
	Credentials func(ctx context.Context) (Credential, error)
	// Timeout bounds one call from the request to the last byte of the answer.
	Timeout time.Duration
	// MaxResponse bounds an answer, in bytes after decompression.
	MaxResponse int64
	Storage     Storage
	// Encryption says what answers are asked to come encrypted.
	Encryption Encryption
	// EIDKey returns the key that opens the person of eid results, and is asked for
	// each of them; nil where the merchant gets none.
	EIDKey func() (*envelope.PrivateKey, error)
	// Log hears, once and at level debug, in which form eid results come; nil
	// means nobody does.
	Log *slog.Logger
	// Observe is told how long a stage of a call took: extract, which reads the answer
	// and takes the media out of it, and open, which decrypts and reads what is left.
	// nil means nobody is.
	Observe func(ctx context.Context, stage string, took time.Duration)
	// Limit is waited for before every request; nil means that there is none.
	Limit Limiter
	// Transport sends the requests; nil means one made by NewTransport.
	Transport http.RoundTripper
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// NewTransport returns an HTTP transport that keeps as many connections as there
// may be calls in flight: the SDK's own keeps two (FACTS §5.4).
func NewTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return wire.ThroughProxy(&http.Transport{
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          512,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		ReadBufferSize:        64 << 10,
	})
}

// Client calls the API for one account. It may be used by any number of
// goroutines: of the SDK nothing is shared between calls (FACTS §5.4).
type Client struct {
	cfg      Config
	caller   *caller
	resolver resolver

	// eidVariant is done when the form of eid results has been logged.
	eidVariant sync.Once
}

// New returns a client; it calls nothing yet.
func New(cfg Config) (*Client, error) {
	if cfg.Encryption.Mode != EncryptNothing && cfg.Encryption.Session == nil {
		return nil, errors.New("a client that asks for encryption needs keys")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(context.Context, string, time.Duration) {}
	}
	limits := extract.DefaultConfig()
	limits.Fields = append(mediaPatterns(), bodyField)
	limits.MaxBody = cfg.MaxResponse
	caller, err := newCaller("faceid", apiVersion, cfg.Endpoint, cfg.Region, cfg.Credentials, cfg.Timeout, cfg.Transport, limits)
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, caller: caller, resolver: resolver{storage: cfg.Storage}}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.caller.close() }

// Query says which result to get and what of it. What an action does not take is
// not sent.
type Query struct {
	Product result.Product
	Token   string
	// RuleID is needed for enhanced tokens and not used for eid.
	RuleID string
	// InfoType are the parts to get (FACTS §1.1, §2.1); empty means all.
	InfoType string
	// BestFrames is how many extra frames to get: up to 10, for eid 3.
	BestFrames int
	// CropIDCard asks for a cropped photo of the card, Avatar for the portrait on
	// it, AllVideos for the videos of failed attempts (with data storage only).
	CropIDCard, Avatar, AllVideos bool
	// Last says that there is no time left to mend what holds the result up: parts of it
	// that cannot be had are left out and listed in Result.Missing, where they are an
	// error otherwise.
	Last bool
	// Priority is the place of the requests among others of the account.
	Priority limit.Priority
}

// The parts that InfoType names (FACTS §1.1); eid has no video.
const (
	partCard   = "2"
	partFrames = "3"
	partVideo  = "4"
	// The two that the verdict may depend on.
	partReadAloud = "5"
	partQuestions = "6"
)

// asksIntention tells whether the query asks for both intention parts.
func (q Query) asksIntention() bool {
	return q.InfoType == "" || strings.Contains(q.InfoType, "0") ||
		strings.Contains(q.InfoType, partReadAloud) && strings.Contains(q.InfoType, partQuestions)
}

// parts returns the query for each of the parts it asks for, or only itself if
// there is but one. That of the video is the last of an eid token.
func (q Query) parts() []Query {
	wanted := q.InfoType
	if wanted == "" || strings.Contains(wanted, "0") {
		wanted = "123456"
	}
	if q.Product == result.EID && strings.Contains(wanted, partVideo) {
		wanted = strings.ReplaceAll(wanted, partVideo, "") + partVideo
	}

	list := make([]Query, 0, len(wanted))
	for _, part := range strings.Split(wanted, "") {
		one := q
		one.InfoType = part
		// Options of other parts may be refused.
		one.CropIDCard = q.CropIDCard && part == partCard
		one.Avatar = q.Avatar && part == partCard
		one.AllVideos = q.AllVideos && part == partVideo
		if part != partFrames {
			one.BestFrames = 0
		}
		list = append(list, one)
	}
	return list
}

// action returns the API action and its parameters.
func (q Query) action() (name string, params map[string]any) {
	name, params = Action(q.Product), map[string]any{}
	set := func(name string, value any, wanted bool) {
		if wanted {
			params[name] = value
		}
	}
	if q.Product == result.EID && q.InfoType != partVideo {
		// Its documents have no such part; fetchParts asks for it alone.
		q.InfoType = strings.ReplaceAll(q.InfoType, partVideo, "")
	}
	set("InfoType", q.InfoType, q.InfoType != "")
	set("IsCutIdCardImage", true, q.CropIDCard)
	set("IsNeedIdCardAvatar", true, q.Avatar)
	if q.Product == result.EID {
		params["EidToken"] = q.Token
		set("BestFramesCount", min(q.BestFrames, 3), q.BestFrames > 0)
		return name, params
	}
	params["BizToken"] = q.Token
	params["RuleId"] = q.RuleID
	set("BestFramesCount", min(q.BestFrames, 10), q.BestFrames > 0)
	set("IsReturnAllVideo", true, q.AllVideos)
	return name, params
}

// Action returns the name of the API's action that results of a product come from.
func Action(p result.Product) string {
	if p == result.EID {
		return "GetEidResult"
	}
	return "GetDetectInfoEnhanced"
}

// Get pulls one result. Its inline media go into batch and live as long as that
// does. The error is an *Error.
func (c *Client) Get(ctx context.Context, q Query, batch *spool.Batch) (*result.Result, error) {
	answer, err := c.fetch(ctx, q, batch)
	if ClassOf(err) == TooLarge && err != nil {
		answer, err = c.fetchParts(ctx, q, batch, err)
	}
	if err != nil {
		return nil, err
	}
	ctx, step := span.Start(ctx, "read")
	r, err := c.read(ctx, q, answer, batch)
	endStep(step, err)
	if err != nil {
		return nil, err
	}
	if undecided := r.Verdict.Code == 0 && r.Verdict.Intention != result.IntentionOff && r.Verdict.IntentionCode == nil && !q.asksIntention(); undecided {
		if r.Verdict.Unreadable = true; !q.Last {
			return nil, failure(RequestTrouble, "the intention step decides this check, and its part was not asked for: add 5 and 6 to request.info_type")
		}
	}
	r.Product, r.Account, r.Token = q.Product, c.cfg.Account, q.Token
	if q.Product == result.Enhanced {
		r.RuleID = q.RuleID
	}
	r.FetchedAt = c.cfg.Now().UTC()
	return r, nil
}
