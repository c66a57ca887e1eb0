package webhook

import (
	"fmt"
	"net/netip"
	"syscall"
)

// refusedError says that a name led to an address that is not of the internet.
type refusedError struct{ addr netip.Addr }

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s is no address of the public internet: set allow_private to send there all the same", e.addr)
}

// onlyPublic is net.Dialer.Control: it is asked with the very address that is
// about to be connected to, which no later answer of the DNS changes.
func onlyPublic(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("cannot tell what address %s is", address)
	}
	if !isPublic(at.Addr()) {
		return &refusedError{at.Addr()}
	}
	return nil
}

var (
	// nat64 is where translators show IPv4 addresses in IPv6 (RFC 6052 §2.1).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	// globalIPv6 is all that is handed out of IPv6.
	globalIPv6 = netip.MustParsePrefix("2000::/3")

	// special are the parts of the above that are not of the public internet, by
	// IANA's registries of special-purpose addresses (RFC 6890).
	special = prefixes(
		"0.0.0.0/8",       // this network
		"10.0.0.0/8",      // private
		"100.64.0.0/10",   // shared, carrier-grade NAT
		"127.0.0.0/8",     // loopback
		"169.254.0.0/16",  // link-local, with the metadata of cloud machines
		"172.16.0.0/12",   // private
		"192.0.0.0/24",    // protocol assignments
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // relays of 6to4
		"192.168.0.0/16",  // private
		"198.18.0.0/15",   // benchmarks
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"224.0.0.0/3",     // multicast, reserved, broadcast
		"2001::/23",       // protocol assignments, with Teredo, which wraps IPv4
		"2001:db8::/32",   // documentation
		"2002::/16",       // 6to4, which wraps IPv4
		"3fff::/20",       // documentation
	)
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, text := range list {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// isPublic reports whether addr is of the public internet.
func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		all := addr.As16()
		addr = netip.AddrFrom4([4]byte(all[12:]))
	}
	if addr.Is6() && !globalIPv6.Contains(addr) {
		return false
	}
	for _, prefix := range special {
		if prefix.Contains(addr) {
			return false
		}
	}
	return addr.IsValid()
}
