package sinks

import (
	"net"
	"net/url"
	"strings"
)

// ClearSender is a Config whose passwords, or results, may travel unencrypted.
type ClearSender interface {
	// InClear returns the hosts, other than this machine, to which they would. What
	// only a file tells that cannot be read is left out: Open says what is wrong.
	InClear() []string
}

// IsLocal reports whether a host is this machine: the loopback interface or the path
// of a Unix socket.
func IsLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || ip != nil && ip.IsLoopback()
}

// NATSInClear returns the hosts of NATS URLs, with commas between, that are reached
// without TLS and are not this machine.
func NATSInClear(urls string) []string {
	var hosts []string
	for one := range strings.SplitSeq(urls, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil && u.Scheme == "nats" && !IsLocal(u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}
