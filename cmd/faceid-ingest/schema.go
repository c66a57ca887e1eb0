package main

import "github.com/faceid-ingest/faceid-ingest/config"

type configSchemaCmd struct{}

func (c *configSchemaCmd) Run(a *app) error {
	_, err := a.stdout.Write(config.Schema())
	return err
}
