package broker

import (
	"context"
	"net"

	"github.com/nats-io/nats.go"
)

// nkeyDialer has the connection name the NKey that is in the file now. nats.go asks a
// callback for everything that a login needs except for that.
type nkeyDialer struct {
	conn *Conn
	cfg  Config
}

// Dial implements nats.CustomDialer. nats.go calls it while it holds the lock of the
// connection's options, and reads them after.
func (d *nkeyDialer) Dial(network, address string) (net.Conn, error) {
	if nc := d.conn.dialled.Load(); nc != nil {
		id, err := nkeyOf(d.cfg.NkeyFile)
		if err != nil {
			return nil, err
		}
		nc.Opts.Nkey = id
	}
	return (&net.Dialer{Timeout: connectWait}).DialContext(context.Background(), network, address)
}

var _ nats.CustomDialer = (*nkeyDialer)(nil)
