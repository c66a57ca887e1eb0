package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// noToken is a token that the service cannot know.
const noToken = "faceid-ingest-config-check" //nolint:gosec // it opens nothing

// onlineProbes call the API: once per account and product with a token that does
// not exist, which shows that the endpoint, the clock, the credentials and their
// permissions are right, and once with the token of the command line, if there is
// one, which shows that the keys are. Without such a token the service need not
// look at the keys.
func (c *configCheckCmd) onlineProbes(cfg *config.Config) ([]probe, error) {
	accounts := cfg.Accounts
	if c.Account != "" {
		only, err := pickAccount(cfg, c.Account)
		if err != nil {
			return nil, err
		}
		accounts = []config.Account{only}
	}

	var list []probe
	for _, account := range accounts {
		for _, product := range productsOf(account) {
			list = append(list, probe{fmt.Sprintf("account %s, %s online", account.Name, product), func(ctx context.Context) error {
				err := pullNothing(ctx, cfg, account, product, noToken)
				if class := faceid.ClassOf(err); err != nil && (class == faceid.Permanent || class == faceid.NotReady) {
					return nil // the service has read the request and refuses the token
				}
				return err
			}})
		}
	}
	if c.Token == "" {
		return list, nil
	}
	account, err := pickAccount(cfg, c.Account)
	if err != nil {
		return nil, err
	}
	return append(list, probe{fmt.Sprintf("account %s, keys", account.Name), func(ctx context.Context) error {
		return pullNothing(ctx, cfg, account, result.Product(c.Product), c.Token)
	}}), nil
}

// productsOf returns the products that an account is configured for.
func productsOf(account config.Account) []result.Product {
	var list []result.Product
	if account.RuleID != "" || account.EID.PrivateKeyFile == "" || account.Encryption.Mode != "none" {
		list = append(list, result.Enhanced)
	}
	if account.EID.PrivateKeyFile != "" {
		list = append(list, result.EID)
	}
	return list
}

// pullNothing pulls a result and lets go of it.
func pullNothing(ctx context.Context, cfg *config.Config, account config.Account, product result.Product, token string) (err error) {
	client, closeClient, err := newClient(cfg, account, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer closeClient()
	folder, err := os.MkdirTemp("", "faceid-ingest-check-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	media, err := spool.Open(spool.Config{Dir: folder, MemoryLimit: int64(cfg.Spool.Memory), Quota: int64(cfg.Spool.Quota)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, media.Close()) }()
	batch, err := media.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, batch.Close()) }()
	q := queryOf(account)
	q.Product, q.Token = product, token
	if q.RuleID == "" {
		q.RuleID = "1"
	}
	_, err = client.Get(ctx, q, batch)
	return err
}
