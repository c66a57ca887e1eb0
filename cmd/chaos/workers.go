//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// worker is one daemon, its configuration, and the wires between it and all others.
type worker struct {
	*process
	config string
	data   string
	wires  map[string][]*proxy
}

// The services that workers are wired to; also the names of the wires.
const (
	toNATS     = "nats"
	toPostgres = "postgres"
	toCOS      = "cos"
	toAPI      = "faceid"
	toHook     = "webhook"
)

func services() []string { return []string{toNATS, toPostgres, toCOS, toAPI, toHook} }

// layout says where everything of a run is.
type layout struct {
	folder, logs string
	binary       string
	archive      string
	// targets are the addresses of the services, several for a cluster.
	targets  map[string][]string
	database string
	replicas int
}

// wire makes proxies to every address of some services.
func wire(ctx context.Context, targets map[string][]string) (wires map[string][]*proxy, err error) {
	wires = map[string][]*proxy{}
	for name, addresses := range targets {
		for _, address := range addresses {
			p, err := newProxy(ctx, address)
			if err != nil {
				return nil, errors.Join(err, unwire(wires))
			}
			wires[name] = append(wires[name], p)
		}
	}
	return wires, nil
}

func unwire(wires map[string][]*proxy) error {
	var errs []error
	for _, list := range wires {
		for _, p := range list {
			errs = append(errs, p.close())
		}
	}
	return errors.Join(errs...)
}

func addressesOf(proxies []*proxy) []string {
	list := make([]string, len(proxies))
	for i, p := range proxies {
		list[i] = p.address()
	}
	return list
}

// newWorker writes a configuration and starts a daemon with it.
func newWorker(ctx context.Context, l layout, number int) (_ *worker, err error) {
	name := fmt.Sprintf("worker-%d", number)
	w := &worker{config: filepath.Join(l.folder, name+".yaml"), data: filepath.Join(l.folder, name)}
	if w.wires, err = wire(ctx, l.targets); err != nil {
		return nil, err
	}
	if err = l.writeConfig(w); err == nil {
		w.process, err = keep(l.logs, name, l.binary, "--config", w.config, "run")
	}
	if err != nil {
		return nil, errors.Join(err, unwire(w.wires))
	}
	return w, nil
}

// writeConfig writes what an owner would, with short waits, small parts and little
// memory, so that everything that can happen does.
func (l layout) writeConfig(w *worker) error {
	database, err := url.Parse(l.database)
	if err != nil {
		return err
	}
	first := func(service string) string { return w.wires[service][0].address() }
	database.Host = first(toPostgres)
	endpoint := "http://" + first(toAPI)
	settings := strings.NewReplacer("FOLDER", l.folder, "ENDPOINT", endpoint)
	var accounts strings.Builder
	for _, way := range ways {
		fmt.Fprintf(&accounts, "  - {name: %s, secret_id: %s, secret_key: %s, endpoint: %q, rate_limit: 1000, rule_id: \"1\", storage: {bucket: %s, region: %s}, %s}\n",
			way.account, apiSecretID, apiSecretKey, endpoint, faceidBucket, region, settings.Replace(way.settings))
	}
	text := fmt.Sprintf(`data_dir: %q
nats: {url: %q, replicas: %d}
accounts:
%sworker: {slots: 8, ack_wait: 3s, timeout: 4s, shutdown_grace: 5s}
spool: {memory: 16KiB}
privacy: {keyring_file: %q}
sinks:
  - {name: evidence, type: cos, bucket: %s, region: %s, secret_id: %s, secret_key: %s, endpoint: "http://%s", mode: pull, seal: true, single_put_limit: 256KiB, part_size: 1MiB}
  - {name: files, type: dir, path: %q, seal: true}
  - {name: rows, type: postgres, url: %q}
  - {name: stream, type: nats}
  - {name: hook, type: webhook, url: "https://%s/results", secret: %q, tls: {ca: %q}, allow_private: true, timeout: 2s}
http: {admin: ""}
log: {level: debug, format: json}
`, w.data, natsURL(addressesOf(w.wires[toNATS])), l.replicas, accounts.String(), filepath.Join(l.folder, keyringName),
		archiveBucket, region, cosSecretID, cosSecretKey, first(toCOS),
		l.archive, database.String(), first(toHook), hookSecret, filepath.Join(l.folder, "hook-ca.pem"))
	return os.WriteFile(w.config, []byte(text), 0o600)
}

const keyringName = "keyring.json"
