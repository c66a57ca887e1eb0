package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
)

type statusCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *statusCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	names := make([]string, len(cfg.Accounts))
	for i, account := range cfg.Accounts {
		names[i] = account.Name
	}
	status, err := pipeline.ReadStatus(ctx, conn.JS, names)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(status)
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "ACCOUNT\tLANE\tWAITING\tHELD\tREDELIVERED\tOLDEST")
	for _, l := range status.Lanes {
		oldest := "-"
		if l.OldestSeconds != nil {
			oldest = seconds(*l.OldestSeconds)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\n", l.Account, l.Lane, l.Waiting, l.Held, l.Redelivered, oldest)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if _, err = fmt.Fprintf(a.stdout, "\nevents stored: %d, dead letters: %d\n", status.Events, status.Dead); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(status.Strangers)) {
		if _, err := fmt.Fprintf(a.stdout, "%d of account %q, which is not configured: nobody takes them\n", status.Strangers[name], name); err != nil {
			return err
		}
	}
	return nil
}
