//! Which addresses cannot be those of a host elsewhere.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Why datagrams for a host elsewhere are never sent to this address; nothing: they may be. As in "127.0.0.1 is a loopback
/// address".
pub fn objection(address: SocketAddr) -> Option<&'static str> {
    let ip = address.ip().to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if address.port() == 0 => Some("has no port"),
        ip if ip.is_loopback() => Some("is a loopback address"),
        ip if ip.is_multicast() => Some("is a multicast address"),
        ip if ip.is_unspecified() => Some("is no host's address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("is a broadcast address"),
        IpAddr::V4(ip) if ip.octets().first() == Some(&0) => Some("is no host's address"),
        IpAddr::V6(ip) if is_compatible(ip) => Some("is no host's address"),
        _ if link_local => Some("is valid on one line only"),
        _ => None,
    }
}

/// IPv6 addresses that stand for IPv4 ones, deprecated (RFC 4291, 2.5.5.1).
fn is_compatible(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, ..] = ip.segments();
    [a, b, c, d, e, f] == [0; 6]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_host_elsewhere_is_objected_to() {
        let facts = [
            ("192.0.2.1:6783", None),
            ("10.0.0.1:1", None),
            ("[2001:db8::1]:6783", None),
            ("127.0.0.1:6783", Some("is a loopback address")),
            ("[::ffff:127.0.0.1]:6783", Some("is a loopback address")),
            ("[::1]:6783", Some("is a loopback address")),
            ("224.0.0.1:6783", Some("is a multicast address")),
            ("[ff02::1]:6783", Some("is a multicast address")),
            ("0.0.0.0:6783", Some("is no host's address")),
            ("0.1.2.3:6783", Some("is no host's address")),
            ("[::]:6783", Some("is no host's address")),
            ("[::7f00:1]:6783", Some("is no host's address")),
            ("255.255.255.255:6783", Some("is a broadcast address")),
            ("169.254.1.1:6783", Some("is valid on one line only")),
            ("[fe80::1]:6783", Some("is valid on one line only")),
            ("192.0.2.1:0", Some("has no port")),
        ];
        for (address, why) in facts {
            assert_eq!(objection(address.parse().unwrap()), why, "{address}");
        }
    }
}
