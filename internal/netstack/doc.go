// Package netstack is the host's end of one VM's network: a TCP/IP stack of its
// own in the daemon, that speaks Ethernet with the guest's network card and sockets
// with the world.
//
// # Addresses
//
// Every VM has a network of its own with the same addresses: the guest is Guest, and
// Gateway is its router, its name server and whatever else listens there through
// Network.Listen. Nobody else is on it, so a clone needs nothing reconfigured, and
// machines do not reach each other. There are addresses of IPv6 too, Guest6 and
// Gateway6; the gateway listens on its address of IPv4 only, and Dial uses the guest's.
//
// # What a packet meets
//
// A frame that the guest sends passes four points, and ends at the first that does
// not want it:
//
//   - the link (attach.go, frame.go) reads frames from the VMM's connection, and
//     writes those of a bounded queue to it. The stack never waits for a guest: what
//     does not fit into the queue is lost, as on any wire, and TCP sends it again;
//   - the door (door.go, door6.go) answers ARP and NDP by itself, and drops what has another sender than
//     the guest. The stack behind it keeps no table of neighbours that could be filled;
//   - the policy (policy.go, special.go, pin.go) decides at the first packet of a flow,
//     before any handshake: a denied TCP connection is reset, a denied datagram
//     answered with ICMP "port unreachable", in a millisecond or so;
//   - the forwarders (tcp.go, udp.go) dial the outside first and complete the guest's
//     handshake after, so that what the outside refuses is refused in the guest too.
//
// Names are resolved at the gateway (dns.go) by the host's resolver. What it answered
// is remembered (pin.go): rules for names are rules for the addresses they have.
//
// # Who owns what
//
// A Network belongs to one instance, and outlives its machines: connections stay over
// Detach and Attach, for a guest that was saved in between; Reset ends them, for a
// guest that boots. Everything a guest can make it keep has a bound (Limits), and
// nothing is shared between Networks but the host's processors.
//
// The package is an adapter: it imports leaves only, and no other adapter.
package netstack
