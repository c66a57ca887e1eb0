package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

const (
	// monitorWait bounds one look at a monitoring endpoint, monitorLimit what is read
	// of it, in bytes.
	monitorWait  = 5 * time.Second
	monitorLimit = 1 << 20
	// pauseMinor is the minor version of server 2 that can pause consumers.
	pauseMinor = 11
)

// Durability looks at what would make the given streams lose messages that the server
// has acknowledged: a single copy, writes that are not on disk yet. It returns a
// warning of each kind, in words, and none for an embedded server, which is set up for it,
// in whichever process. What a client cannot see is asked of the monitoring endpoints,
// URLs such as http://nats-0:8222; without them a warning says so. Streams that are not
// there yet are taken to get replicas copies.
func (c *Conn) Durability(ctx context.Context, monitors []string, replicas int, streams ...string) ([]string, error) {
	if c.Embedded() || c.joined {
		return nil, nil
	}
	var single, missing, async []string
	for _, name := range streams {
		stream, err := c.JS.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			missing = append(missing, name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at stream %s: %w", name, err)
		}
		cfg := stream.CachedInfo().Config
		if cfg.Replicas == 1 {
			single = append(single, name)
		}
		if cfg.PersistMode == jetstream.AsyncPersistMode {
			async = append(async, name)
		}
	}
	var warnings []string
	warn := func(names []string, format string) {
		if len(names) > 0 {
			warnings = append(warnings, fmt.Sprintf(format, strings.Join(names, ", ")))
		}
	}
	warn(single, "one copy (R1) is kept of %s: what its server loses is lost; use a cluster and nats.replicas: 3")
	if replicas == 1 {
		warn(missing, "one copy will be kept of %s (nats.replicas is 1): what its server loses is lost; use a cluster and nats.replicas: 3")
	}
	warn(async, "the server acknowledges before it writes %s (persist_mode async): set the default mode")
	if version := c.NATS.ConnectedServerVersion(); !canPause(version) {
		warnings = append(warnings, fmt.Sprintf("server %s cannot pause consumers (2.%d can): while the API refuses an account, each worker finds out by itself", version, pauseMinor))
	}
	return append(warnings, syncWarnings(ctx, monitors)...), nil
}

// canPause tells whether a server of this version can pause consumers.
func canPause(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	return err != nil || major != "2" || n >= pauseMinor
}

const syncAdvice = "set \"jetstream { sync_interval: always }\" on the servers, or a power cut takes what was acknowledged in the last minutes"

// syncWarnings asks each server whether it syncs before it acknowledges.
func syncWarnings(ctx context.Context, monitors []string) []string {
	if len(monitors) == 0 {
		return []string{"whether the servers sync to disk before they acknowledge cannot be seen: give their monitoring endpoints as nats.monitor, or make sure; " + syncAdvice}
	}
	var warnings []string
	for _, url := range monitors {
		switch always, err := syncsAlways(ctx, url); {
		case err != nil:
			warnings = append(warnings, fmt.Sprintf("the monitoring endpoint %s cannot be read: %v", url, err))
		case !always:
			warnings = append(warnings, fmt.Sprintf("the server at %s acknowledges before it syncs to disk: %s", url, syncAdvice))
		}
	}
	return warnings
}

// syncsAlways reads /jsz of a monitoring endpoint.
func syncsAlways(ctx context.Context, url string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, monitorWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/jsz?config=true", nil)
	if err != nil {
		return false, errors.New("it is no URL")
	}
	client := &http.Client{Transport: wire.Transport{Base: &http.Transport{DisableKeepAlives: true}}}
	response, err := client.Do(request)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }() // only read
	var info struct {
		Config *struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
	}
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("it answers HTTP %d", response.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, monitorLimit)).Decode(&info); err != nil || info.Config == nil {
		return false, errors.New("it does not answer like nats-server with JetStream")
	}
	return info.Config.SyncAlways, nil
}
