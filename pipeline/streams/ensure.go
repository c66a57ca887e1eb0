package streams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Codes of the server that nats.go has no names for.
const (
	codeAccountResources jetstream.ErrorCode = 10002
	codeResources        jetstream.ErrorCode = 10023
	codeMaxStreams       jetstream.ErrorCode = 10027
	codeMemory           jetstream.ErrorCode = 10028
	codeStorage          jetstream.ErrorCode = 10047
	codeInvalidConfig    jetstream.ErrorCode = 10052
	codeOverlap          jetstream.ErrorCode = 10065
	codeNotClustered     jetstream.ErrorCode = 10074
	codeStoreFailed      jetstream.ErrorCode = 10077
	codeBytesRequired    jetstream.ErrorCode = 10113
	codeStreamBytes      jetstream.ErrorCode = 10122
)

const (
	// leastBytes is the smallest stream that is made, in bytes.
	leastBytes = 1 << 20
	// less is how many times smaller a stream is tried for which there is no room: a
	// server sets aside what is asked, and the streams after it need some, too.
	less = 10
	// quotaName is in the metadata of a stream that is larger, or smaller, than its quota,
	// because the server could not set so much aside: what the quota is.
	quotaName = "faceid-ingest.quota"
)

// UnfitError is of a stream that an operator has made otherwise than the daemon needs it,
// or that cannot be made. It stays so until somebody changes it.
type UnfitError struct {
	// Stream is what the operator calls it, Setting is where that stands.
	Stream, Setting string
	// Problem says what is wrong with it, and what to do.
	Problem string
	// Err is the server's answer; nil if it is not asked to do anything.
	Err error
}

func (e *UnfitError) Error() string {
	text := fmt.Sprintf("stream %s (%s) %s", e.Stream, e.Setting, e.Problem)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *UnfitError) Unwrap() error { return e.Err }

// Ensure returns the stream of n. One that is missing is made on replicas servers, as
// large as there is room for. One that is there is taken if it suffices; subjects that it
// lacks are added, and replicas, quotas and the like changed where the user may, never
// lowered. One that would lose something is an *UnfitError.
func Ensure(ctx context.Context, js jetstream.JetStream, n Need, replicas int) (jetstream.Stream, error) {
	n.Config.Replicas = replicas
	if n.Config.MaxBytes == 0 {
		n.Config.MaxBytes = DefaultMaxBytes
		if most := layoutOf(js).MaxBytes; most > 0 {
			n.Config.MaxBytes = most
		}
	}

	stream, err := js.Stream(ctx, n.Config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = n.create(ctx, js)
		if err == nil {
			return stream, nil
		}
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, err
		}
		// Somebody else was faster.
		stream, err = js.Stream(ctx, n.Config.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w", n.Config.Name, err)
	}
	return n.take(ctx, js, stream)
}

// OpenKeyValue opens the key-value bucket of n, and makes sure of it first.
func OpenKeyValue(ctx context.Context, js jetstream.JetStream, n Need, replicas int) (jetstream.KeyValue, error) {
	if _, err := Ensure(ctx, js, n, replicas); err != nil {
		return nil, err
	}
	return js.KeyValue(ctx, strings.TrimPrefix(n.Config.Name, keyValue))
}

// EnsureAll is Ensure for a list; the error is of all that fail.
func EnsureAll(ctx context.Context, js jetstream.JetStream, needs []Need, replicas int) error {
	var errs []error
	for _, n := range needs {
		if _, err := Ensure(ctx, js, n, replicas); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// create makes the stream within the limits that the server tells when they are exceeded.
func (n Need) create(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	cfg := n.Config
	for {
		stream, err := js.CreateStream(ctx, cfg)
		if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return stream, err
		}
		next, ok := n.within(cfg, err)
		if !ok {
			return nil, n.explain(ctx, js, err)
		}
		cfg = next
	}
}

// within returns what may be tried in place of cfg, which the server has refused; false
// if there is nothing.
func (n Need) within(cfg jetstream.StreamConfig, err error) (jetstream.StreamConfig, bool) {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return cfg, false
	}

	switch {
	case api.ErrorCode == codeInvalidConfig && strings.Contains(api.Description, "duplicates window") && cfg.Duplicates > 0:
		cfg.Duplicates = 0 // the server's own
	case noRoom(api) && cfg.Storage == jetstream.MemoryStorage && cfg.MaxBytes <= leastBytes:
		// An account may have room on disk only.
		cfg.Storage, cfg.MaxBytes = jetstream.FileStorage, n.Config.MaxBytes
	case noRoom(api) && n.Quota != "" && cfg.MaxBytes == n.Config.MaxBytes:
		cfg.MaxBytes = -1
	case api.ErrorCode == codeBytesRequired && cfg.MaxBytes < 0:
		cfg.MaxBytes = max(leastBytes, n.Config.MaxBytes/less)
	case (noRoom(api) || api.ErrorCode == codeStreamBytes) && cfg.MaxBytes > leastBytes:
		cfg.MaxBytes = max(leastBytes, cfg.MaxBytes/less)
	default:
		return cfg, false
	}
	if n.Quota != "" && cfg.MaxBytes != n.Config.MaxBytes {
		cfg.Metadata = noteQuota(cfg.Metadata, n.Config.MaxBytes)
	}
	return cfg, true
}

func noteQuota(metadata map[string]string, quota int64) map[string]string {
	metadata = maps.Clone(metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata[quotaName] = strconv.FormatInt(quota, 10)
	return metadata
}

// QuotaOf returns the quota of a stream that has one, in bytes: what was asked for, if
// the server could not set that aside. It is 0 if there is none.
func QuotaOf(cfg jetstream.StreamConfig) int64 {
	if noted, err := strconv.ParseInt(cfg.Metadata[quotaName], 10, 64); err == nil && noted > 0 && (cfg.MaxBytes <= 0 || noted < cfg.MaxBytes) {
		return noted
	}
	return max(0, cfg.MaxBytes)
}

// IsNoRoom reports whether the server has refused something for want of room.
func IsNoRoom(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && noRoom(api)
}

func noRoom(api *jetstream.APIError) bool {
	switch api.ErrorCode {
	case codeAccountResources, codeResources, codeMemory, codeStorage:
		return true
	case codeStoreFailed:
		return api.Description == "maximum bytes exceeded"
	}
	return false
}

// explain says what to do about a stream that cannot be made or changed.
func (n Need) explain(ctx context.Context, js jetstream.JetStream, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("make stream %s: %w", NameIn(js, n.Config.Name), err)
	}

	problem := "cannot be made"
	switch {
	case api.ErrorCode == codeOverlap:
		problem = n.overlap(ctx, js)
	case api.ErrorCode == codeMaxStreams:
		problem = fmt.Sprintf("cannot be made, for the account may have no more streams: the daemon needs %d, raise the account's max_streams, or delete streams that nobody needs", len(Table(1)))
	case noRoom(api), api.ErrorCode == codeStreamBytes:
		problem = fmt.Sprintf("cannot be made, for not even %d MiB are left: raise the account's or the server's limits (max_file, max_mem, max_file_store), or delete what nobody needs", leastBytes>>20)
	case api.ErrorCode == codeNotClustered:
		problem = "cannot be made on several servers, for there is no cluster: set nats.replicas to 1"
	case n.Config.Replicas > 1:
		problem = fmt.Sprintf("cannot be made on %d servers (nats.replicas)", n.Config.Replicas)
	}
	return &UnfitError{NameIn(js, n.Config.Name), n.Setting, problem, err}
}

// overlap says which stream has the subjects. Who it is may be hidden.
func (n Need) overlap(ctx context.Context, js jetstream.JetStream) string {
	own := layoutOf(js).config(n.Config)
	var owners []string
	for _, subject := range own.Subjects {
		lister := js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
		for name := range lister.Name() {
			if name != own.Name && !slices.Contains(owners, name) {
				owners = append(owners, name)
			}
		}
	}
	list := strings.Join(owners, ", ")
	if list == "" {
		list = "another stream"
	}
	return fmt.Sprintf("cannot have its subjects, %s, for %s takes them: if that is the stream for them, set %s to its name; else take them out of its subjects",
		strings.Join(own.Subjects, ", "), list, n.Setting)
}

// take returns the stream if it suffices, or can be changed so.
func (n Need) take(ctx context.Context, js jetstream.JetStream, stream jetstream.Stream) (jetstream.Stream, error) {
	have := stream.CachedInfo().Config
	unfit := func(how, problem string) error {
		return &UnfitError{Stream: have.Name, Setting: n.Setting, Problem: how + ": " + problem + "; change it, or delete it and it is made anew"}
	}
	if problem := n.losing(have); problem != "" {
		return nil, unfit("would lose "+n.holds(), problem)
	}
	if problem := n.refusing(have); problem != "" {
		return nil, unfit("does not do", problem)
	}

	want, must := n.wanting(have, layoutOf(js).config(n.Config).Subjects)
	if want == nil {
		return stream, nil
	}
	changed, err := js.UpdateStream(ctx, *want)
	if err == nil {
		return changed, nil
	}
	var api *jetstream.APIError
	if n.Quota != "" && errors.As(err, &api) && noRoom(api) {
		want.MaxBytes, want.Metadata = -1, noteQuota(want.Metadata, n.Config.MaxBytes)
		if changed, err := js.UpdateStream(ctx, *want); err == nil {
			return changed, nil
		}
	}
	if !must && (ctx.Err() == nil || errors.Is(context.Cause(ctx), nats.ErrPermissionViolation)) {
		// It can do without: its owner or the server may not have it.
		return stream, nil
	}
	return nil, n.explain(ctx, js, fmt.Errorf("change stream %s: %w", have.Name, err))
}

func (n Need) holds() string {
	if n.Quota != "" {
		return "results"
	}
	if strings.HasPrefix(n.Config.Name, keyValue) {
		return "entries"
	}
	return "events"
}

// wanting returns have with what it lacks, or nil if that is nothing; must says that it
// cannot be without.
func (n Need) wanting(have jetstream.StreamConfig, subjects []string) (want *jetstream.StreamConfig, must bool) {
	next, change := have, false
	for _, subject := range subjects {
		if !slices.ContainsFunc(have.Subjects, func(s string) bool { return covers(s, subject) }) {
			next.Subjects = append(slices.Clone(next.Subjects), subject)
			must = true
		}
	}
	if n.Config.AllowRollup && !have.AllowRollup {
		next.AllowRollup = true
		must = true
	}
	if n.Purges && have.DenyPurge {
		next.DenyPurge = false
		must = true
	}
	if n.Config.AllowMsgTTL && !have.AllowMsgTTL {
		next.AllowMsgTTL, change = true, true
	}
	if have.Replicas < n.Config.Replicas {
		next.Replicas, change = n.Config.Replicas, true
	}
	if n.Quota != "" && QuotaOf(have) != n.Config.MaxBytes {
		next.MaxBytes, change = n.Config.MaxBytes, true
		next.Metadata = maps.Clone(have.Metadata)
		delete(next.Metadata, quotaName)
	}
	if n.Quota != "" && have.AllowDirect {
		next.AllowDirect, change = false, true
	}
	if !change && !must {
		return nil, false
	}
	return &next, must
}

// covers reports whether all that subject matches pattern matches, too.
func covers(pattern, subject string) bool {
	want, have := strings.Split(subject, "."), strings.Split(pattern, ".")
	for i, token := range have {
		switch {
		case token == ">":
			return len(want) > i
		case i >= len(want), want[i] == ">":
			return false
		case token != "*" && token != want[i]:
			return false
		}
	}
	return len(want) == len(have)
}

// losing says how a stream would lose what it is given, or returns "".
func (n Need) losing(have jetstream.StreamConfig) string {
	bounded := have.MaxMsgs > 0 || have.MaxBytes > 0 || have.MaxMsgsPerSubject > 0
	perSubject := n.Config.MaxMsgsPerSubject == 0 && have.MaxMsgsPerSubject > 0 && !have.DiscardNewPerSubject
	switch {
	case have.Retention != n.Config.Retention:
		return fmt.Sprintf("it has %s retention, and must have %s", have.Retention, strings.ToLower(n.Config.Retention.String()))
	case have.Storage != jetstream.FileStorage && !n.AnyStorage:
		return fmt.Sprintf("it has %s storage, and must have files", have.Storage)
	case have.MaxAge > 0 && n.LeastAge < 0:
		return fmt.Sprintf("its max_age keeps them for %s, and must without end", have.MaxAge)
	case have.MaxAge > 0 && have.MaxAge < n.LeastAge:
		return fmt.Sprintf("its max_age keeps them for %s, and must for %s", have.MaxAge, n.LeastAge)
	case have.Discard == jetstream.DiscardOld && bounded && !n.DropsOld, perSubject:
		return "it has limits and discards old ones at them, and must discard new ones"
	}
	return ""
}

// refusing says what the daemon could not do with a stream, or returns "".
func (n Need) refusing(have jetstream.StreamConfig) string {
	switch {
	case have.Mirror != nil:
		return "it is a mirror, in which nothing can be stored"
	case have.Sealed:
		return "it is sealed"
	case have.NoAck:
		return "it does not confirm what it stores (no_ack)"
	case have.SubjectTransform != nil:
		return "it stores under other subjects (subject_transform)"
	case n.Deletes && have.DenyDelete:
		return "nothing can be deleted in it (deny_delete)"
	case n.MostAge > 0 && (have.MaxAge == 0 || have.MaxAge > n.MostAge):
		return fmt.Sprintf("its max_age keeps what is only true now for %s, and must for %s at most", ageOf(have), n.MostAge)
	case have.MaxMsgSize > 0 && have.MaxMsgSize < n.LeastMessage:
		return fmt.Sprintf("it takes messages of %d bytes (max_msg_size), and must of %d", have.MaxMsgSize, n.LeastMessage)
	}
	return ""
}

func ageOf(c jetstream.StreamConfig) string {
	if c.MaxAge == 0 {
		return "ever"
	}
	return c.MaxAge.String()
}
