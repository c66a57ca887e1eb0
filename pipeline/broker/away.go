package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Codes of the server, which nats.go has no names for, that say that a cluster is not
// ready: it has no leader, or too few of its servers are there.
const (
	codeNotLeader       jetstream.ErrorCode = 10009
	codeNoPeers         jetstream.ErrorCode = 10005
	codeStreamOffline   jetstream.ErrorCode = 10118
	codeConsumerOffline jetstream.ErrorCode = 10119
)

// IsAway tells whether an error says that the servers cannot be reached or are not ready
// just now, as while a cluster elects a leader: the same request may succeed later. A
// refusal is an answer, and so are a certificate that is not trusted and a
// connection that this program has closed.
func IsAway(err error) bool {
	if errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeNotLeader, codeNoPeers, codeStreamOffline, codeConsumerOffline:
			return true
		case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
			return false
		}
		return api.Code == http.StatusServiceUnavailable
	}
	for _, away := range []error{
		nats.ErrNoServers, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrReconnectBufExceeded, nats.ErrStaleConnection, jetstream.ErrNoStreamResponse, context.DeadlineExceeded,
		// A proxy before a server that is away, or a server that ends.
		io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, away) {
			return true
		}
	}
	var network net.Error
	if !errors.As(err, &network) || tlsHint(err) != "" {
		return false
	}
	// An error of a file looks like one of a network: both are of the system.
	system, bare := network.(syscall.Errno)
	return !bare || system.Temporary() || system.Timeout()
}
