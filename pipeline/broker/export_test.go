package broker

import "github.com/nats-io/nats-server/v2/server"

// SyncsAlways asks the embedded server whether it syncs to disk before it acknowledges.
func (c *Conn) SyncsAlways() bool {
	jsz, err := c.embedded.server.Jsz(&server.JSzOptions{})
	return err == nil && jsz.Config.SyncAlways
}
